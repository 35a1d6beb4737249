"""Contract checks of the acceptors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.components.acceptors.conftest import evidence, rows
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import acceptors
from tracer_serve.protocols import Acceptor


def fitted(name: str, k: int = 5) -> Acceptor:
    """Fit on a world where half of the rows disagree, at random."""
    acceptor = acceptors.build(name)
    seen = evidence(k=k)
    return acceptor.fit(acceptor.features(seen), np.random.default_rng(1).random(300) < 0.5)


@pytest.mark.parametrize("k", [1, 2, 77])
def test_scores_every_row_of_any_number_of_classes(name: str, k: int) -> None:
    """One class, two and many: each row gets one finite score."""
    acceptor = fitted(name, k)
    score = acceptor.score(acceptor.features(evidence(n=9, k=k, seed=2)))
    assert score.shape == (9,)
    assert np.isfinite(score).all()


@pytest.mark.parametrize("k", [1, 5])
def test_a_nan_probability_is_never_scored_and_harms_no_other_row(name: str, k: int) -> None:
    """NaN in, NaN out: such a row is never handled, and the rest score as they would without it."""
    acceptor = fitted(name, k)
    seen = evidence(n=9, k=k, seed=2)
    broken = seen.proba.copy()
    broken[3, 0] = np.nan
    score = acceptor.score(acceptor.features(replace(seen, proba=broken)))
    expected = acceptor.score(acceptor.features(seen))
    expected[3] = np.nan
    np.testing.assert_array_equal(score, expected)


@pytest.mark.parametrize("neighbours", [0, 1, 4])
def test_missing_neighbours_leave_a_score(name: str, neighbours: int) -> None:
    """Fewer training rows than neighbours asked for, or none, is no reason for NaN."""
    acceptor = fitted(name)
    score = acceptor.score(acceptor.features(evidence(n=9, neighbours=neighbours)))
    assert np.isfinite(score).all()


def test_features_of_a_batch_are_those_of_its_parts(name: str) -> None:
    """Features learn nothing from the batch, so rows of different folds can be stacked."""
    acceptor, seen = acceptors.build(name), evidence(n=20)
    parts = [acceptor.features(rows(seen, part)) for part in (slice(7), slice(7, 20))]
    whole = acceptor.features(seen)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_no_rows_are_no_error(name: str) -> None:
    """An empty batch has an empty score."""
    acceptor = fitted(name)
    assert acceptor.score(acceptor.features(evidence(n=0))).shape == (0,)


def test_survives_the_disk(name: str, tmp_path: Path) -> None:
    """A saved and loaded acceptor scores the same, without pickle."""
    acceptor = fitted(name)
    save_component(acceptor, tmp_path / "acceptor")
    loaded = load_component(type(acceptor), tmp_path / "acceptor")
    features = acceptor.features(evidence(n=9, seed=2))
    np.testing.assert_array_equal(loaded.score(features), acceptor.score(features))


def test_a_sharper_answer_is_safer(name: str) -> None:
    """Without anything learnt, the score grows with the probability of the answer."""
    acceptor, seen = acceptors.build(name), evidence(n=3, k=2)
    sharper = replace(seen, proba=np.array([[0.5, 0.5], [0.3, 0.7], [0.9, 0.1]], np.float32))
    assert np.all(np.diff(acceptor.score(acceptor.features(sharper))) > 0)


def test_values() -> None:
    """`top1` is the largest probability, `margin` its lead over the second; one class leads by all it has."""
    seen = replace(evidence(n=2, k=3), proba=np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32))
    alone = replace(evidence(n=2, k=1), proba=np.ones((2, 1), np.float32))
    top1, margin = acceptors.build("top1"), acceptors.build("margin")
    np.testing.assert_allclose(top1.score(top1.features(seen)), [0.5, 0.8])
    np.testing.assert_allclose(margin.score(margin.features(seen)), [0.2, 0.7], rtol=1e-6)
    np.testing.assert_array_equal(margin.score(margin.features(alone)), [1, 1])
