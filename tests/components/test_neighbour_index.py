"""Neighbour index: recall, and independence of the batch."""

from pathlib import Path

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.types import Inputs, Vectors


def clustered(rows: int, seed: int = 0, groups: int = 150) -> Vectors:
    """Unit vectors as texts have them: many loose groups."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((groups, 48))
    vectors = centres[rng.integers(groups, size=rows)] + 0.7 * rng.standard_normal((rows, 48))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


ROWS, QUERIES = clustered(6_000), clustered(300, seed=1)
INDEX = NeighbourIndex().fit(ROWS, np.arange(6_000) % 5)


def test_nearly_all_of_the_nearest_rows_are_found() -> None:
    """Of the 15 truly nearest rows at least 98 % are found, and what is found is nearest first."""
    near = INDEX.query(QUERIES)
    truth = np.argsort(-(QUERIES @ ROWS.T), axis=1)[:, :15]
    found = [len(set(a) & set(b)) / 15 for a, b in zip(truth.tolist(), near.row.tolist(), strict=True)]
    assert np.mean(found) > 0.98
    assert (np.diff(near.similarity, axis=1) <= 0).all()


def test_what_is_said_of_a_neighbour_is_true() -> None:
    """Row, label and cosine belong together."""
    near = INDEX.query(QUERIES)
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", QUERIES, ROWS[near.row]), near.similarity, atol=1e-5)
    np.testing.assert_array_equal(near.label, near.row % 5)


def test_a_batch_does_not_change_what_a_query_finds() -> None:
    """A query finds the same rows alone, in a small batch and in a large one."""
    whole = INDEX.query(QUERIES)
    alone = [INDEX.query(query[None]) for query in QUERIES[:40]]
    for start in (0, 3):
        few = INDEX.query(QUERIES[start : start + 7])
        np.testing.assert_allclose(few.similarity, whole.similarity[start : start + 7], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([near.row for near in alone]), whole.row[:40])


def test_a_query_looks_at_a_fraction_of_the_rows() -> None:
    """What a query is compared with stays far below the rows, and the rows below the cap."""
    _, cosine = INDEX._compare(QUERIES, INDEX._probed(QUERIES))
    assert np.isfinite(cosine).sum(axis=1).mean() < len(ROWS) / 4
    assert len(NeighbourIndex(cap=3_000).fit(ROWS, np.zeros(6_000, int)).vectors) == 3_000


def test_few_rows_are_searched_exactly() -> None:
    """Up to 2,048 rows the nearest are the nearest, and what is missing has cosine -inf."""
    rows = ROWS[:2_000]
    near = NeighbourIndex().fit(rows, np.zeros(2_000, int)).query(QUERIES)
    np.testing.assert_allclose(near.similarity, np.sort(QUERIES @ rows.T, axis=1)[:, :-16:-1], atol=1e-6)
    few = NeighbourIndex(k=4).fit(rows[:3], np.zeros(3, int)).query(QUERIES[:1])
    assert np.isfinite(few.similarity).tolist() == [[True, True, True, False]]


def test_many_neighbours_are_found_in_more_cells() -> None:
    """Who asks for 500 neighbours gets 500."""
    near = NeighbourIndex(k=500).fit(ROWS, np.zeros(6_000, int)).query(QUERIES)
    assert np.isfinite(near.similarity).all()


def test_duplicates_of_one_row_are_no_trouble() -> None:
    """Thousands of equal rows fill one cell, and are all at cosine 1."""
    rows = np.repeat(QUERIES[:1], 3_000, axis=0)
    near = NeighbourIndex().fit(rows, np.zeros(3_000, int)).query(QUERIES[:1])
    np.testing.assert_allclose(near.similarity, 1.0, atol=1e-6)


def test_the_searches_of_a_batch_are_shared() -> None:
    """A second index on the same rows, and a part of the batch, reuse the search with their own labels."""
    inputs, other = Inputs([""] * 300, QUERIES), NeighbourIndex().fit(ROWS, np.arange(6_000) % 3)
    INDEX.near(inputs)
    assert len(inputs.searched) == 1
    shared = other.near(inputs)
    assert len(inputs.searched) == 1
    np.testing.assert_array_equal(shared.label, shared.row % 3)
    part = inputs.take(np.array([5, 2]))
    np.testing.assert_array_equal(INDEX.near(part).row, INDEX.query(QUERIES[[5, 2]]).row)


def test_an_index_comes_back_from_disk(tmp_path: Path) -> None:
    """What was saved finds the same rows, and shares searches with what was not."""
    save_component(INDEX, tmp_path / "index")
    back = load_component(NeighbourIndex, tmp_path / "index")
    np.testing.assert_array_equal(back.query(QUERIES).row, INDEX.query(QUERIES).row)
    assert back.digest == INDEX.digest
