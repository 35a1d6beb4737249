import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.gate.scope import scope_scores, scope_threshold
from tracer_serve.records import Floats


def test_scope_score_is_log_top_plus_five_cosines() -> None:
    """The score is log(top probability) + 5 x mean cosine over the neighbours there are."""
    proba = np.array([[0.2, 0.8], [0.5, 0.5]], np.float32)
    similarity = np.array([[0.9, 0.7], [0.6, -np.inf]], np.float32)
    assert scope_scores(proba, similarity) == pytest.approx([np.log(0.8) + 4.0, np.log(0.5) + 3.0], rel=1e-6)


def test_without_neighbours_a_row_is_out_of_scope() -> None:
    """A row that nothing was ever compared with is under every finite threshold."""
    assert scope_scores(np.ones((1, 1)), np.full((1, 3), -np.inf)).tolist() == [-np.inf]


def test_a_broken_probability_passes_no_guard() -> None:
    """NaN probabilities give a NaN scope score, which no threshold lets pass."""
    assert not (scope_scores(np.array([[np.nan, 0.1]]), np.ones((1, 2))) >= -np.inf).any()


@given(st.integers(1, 400), st.floats(0.5, 0.999), st.integers(0, 2**32 - 1))
def test_guard_keeps_its_share(n: int, keep: float, seed: int) -> None:
    """At least the share `keep` passes, and without ties not a whole row more than that."""
    scores = np.random.default_rng(seed).normal(size=n)
    passed = int((scores >= scope_threshold(scores, keep)).sum())
    assert keep * n - 1e-6 <= passed < keep * n + 1 + 1e-6


def test_guard_keeps_ties() -> None:
    """Equal scores pass together, so that a constant scope score defers nobody."""
    assert (np.full(50, 0.3) >= scope_threshold(np.full(50, 0.3), 0.9)).all()


@pytest.mark.parametrize(("scores", "keep"), [(np.arange(9.0), 1.0), (np.full(9, np.nan), 0.9)])
def test_guard_is_off_for_a_closed_task_and_without_scores(scores: Floats, keep: float) -> None:
    """With keep = 1, or nothing to learn from, the guard lets everything pass."""
    assert scope_threshold(scores, keep) == -np.inf
