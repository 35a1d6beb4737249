"""Folds: random, and duplicates never part."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.fit.folds import duplicate_groups, holdout, random_folds

TEXTS = st.lists(st.text("ab ?!", max_size=6), min_size=1, max_size=40)


@given(TEXTS)
def test_duplicates_share_a_fold(texts: list[str]) -> None:
    """Texts of one group are always in one fold, whatever they are."""
    groups, folds = duplicate_groups(texts), random_folds(texts, 3, seed=1)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1


@given(TEXTS, st.integers(0, 5))
def test_a_holdout_never_splits_duplicates(texts: list[str], seed: int) -> None:
    """Held-out rows have no duplicate among the others."""
    groups, out = duplicate_groups(texts), holdout(texts, 0.5, seed)
    assert not set(groups[out]) & set(groups[~out])


def test_near_duplicates_are_found() -> None:
    """Case, order, repetition and punctuation do not make another text; another word does."""
    texts = ["Where is my card?", "my card... WHERE is", "where is is my card", "where is my pin", "?!", "?!", "!!"]
    groups = duplicate_groups(texts)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] != groups[0]
    assert groups[4] == groups[5] != groups[6]


def test_pairs_are_grouped_by_both_sides() -> None:
    """A pair is another pair where its sides are swapped."""
    assert duplicate_groups([("a", "b"), ("A!", "b"), ("b", "a")]).tolist() == [0, 0, 1]


def test_folds_are_about_equal_and_depend_on_the_seed() -> None:
    """100 distinct texts make five folds of 20, dealt anew by another seed."""
    texts = [f"text {i}" for i in range(100)]
    first, second = random_folds(texts, 5, 0), random_folds(texts, 5, 1)
    assert np.bincount(first).tolist() == [20] * 5
    assert (first != second).any()
