import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.gate.scope_guard import scope_scores, scope_threshold, scope_thresholds
from tracer_serve.types import Floats


def test_scope_score_is_log_top_plus_five_cosines_minus_rarity() -> None:
    """The score is log(top probability) + 5 x mean cosine over the neighbours there are - 0.75 x rarity."""
    proba = np.array([[0.2, 0.8], [0.5, 0.5]], np.float32)
    similarity = np.array([[0.9, 0.7], [0.6, -np.inf]], np.float32)
    assert scope_scores(proba, similarity, np.array([0.0, 4.0])) == pytest.approx(
        [np.log(0.8) + 4.0, np.log(0.5)], rel=1e-6
    )


def test_without_neighbours_a_row_is_out_of_scope() -> None:
    """A row that nothing was ever compared with is under every finite threshold."""
    assert scope_scores(np.ones((1, 1)), np.full((1, 3), -np.inf), np.zeros(1)).tolist() == [-np.inf]


def test_a_broken_probability_passes_no_guard() -> None:
    """NaN probabilities give a NaN scope score, which no threshold lets pass."""
    assert not (scope_scores(np.array([[np.nan, 0.1]]), np.ones((1, 2)), np.zeros(1)) >= -np.inf).any()


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


@given(st.integers(1, 300), st.integers(1, 3), st.floats(0.5, 0.999), st.integers(0, 2**32 - 1))
def test_guards_of_a_cascade_keep_their_share_together(n: int, stages: int, keep: float, seed: int) -> None:
    """At least the share `keep` passes one of them, and without ties not a whole row more; all keep as much."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(stages, n))
    answers = np.r_[
        rng.random((stages - 1, n)) < 0.7, np.ones((1, n), bool)
    ]  # the last is asked about all that is left
    passes = scores >= scope_thresholds(scores, answers, keep)[:, None]
    assert keep * n - 1e-6 <= (answers & passes).any(axis=0).sum() < keep * n + stages + 1e-6
    assert np.ptp(passes.sum(axis=1)) == 0


@given(st.integers(1, 300), st.floats(0.5, 1.0), st.integers(0, 2**32 - 1))
def test_the_guard_of_one_stage_is_the_guard(n: int, keep: float, seed: int) -> None:
    """With one stage that answers all there is one rule, also where scores are equal, infinite or missing."""
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(n) < 0.1, rng.choice([np.nan, -np.inf], n), rng.integers(0, 20, n))
    assert scope_thresholds(scores[None], np.ones((1, n), bool), keep) == scope_threshold(scores, keep)


def test_guards_of_a_cascade_are_off_where_one_would_be() -> None:
    """With keep = 1, or nothing to learn from, all guards let everything pass; one stage without scores stops none."""
    scores, answers = np.stack([np.full(9, np.nan), np.arange(9.0)]), np.ones((2, 9), bool)
    assert scope_thresholds(scores, answers, 1.0).tolist() == [-np.inf, -np.inf]
    assert scope_thresholds(scores[:1], answers[:1], 0.9).tolist() == [-np.inf]
    assert scope_thresholds(scores, answers, 0.6).tolist() == [-np.inf, 3.0]
