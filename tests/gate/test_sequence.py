import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tracer_serve.gate.binomial import n_min, p_values
from tracer_serve.gate.fixed_sequence import ThresholdCounts, accepts, cascade_grid, power, threshold_grid, walk
from tracer_serve.types import Floats

ODD = st.sampled_from([np.nan, np.inf, -np.inf, 1.0])
SCORES = arrays(np.float64, st.integers(0, 300), elements=st.one_of(st.floats(-5, 5), ODD))


@given(SCORES)
def test_grid_loosens_and_ends_with_everything(scores: Floats) -> None:
    """Thresholds fall strictly and the last accepts every finite score, none other."""
    grid = threshold_grid(scores)
    assert np.all(np.diff(grid) < 0)
    assert np.array_equal(accepts(scores, grid[-1]), np.isfinite(scores))
    assert len(grid) <= 200


@given(SCORES)
def test_accepted_set_grows_along_the_grid(scores: Floats) -> None:
    """What a stricter threshold accepts, a looser one accepts too, and each accepts something new."""
    accepted = np.array([accepts(scores, t) for t in threshold_grid(scores)])
    assert np.all(accepted[:-1] <= accepted[1:])
    if np.isfinite(scores).any():
        assert np.all(np.diff(accepted.sum(axis=1)) > 0)


def test_grid_has_the_accept_fractions() -> None:
    """Without ties the thresholds accept 1/200 ... 199/200 and all of the reference rows."""
    scores = np.random.default_rng(0).permutation(2000.0 + np.arange(2000))
    counts = [int(accepts(scores, t).sum()) for t in threshold_grid(scores)]
    assert counts == [*range(10, 2000, 10), 2000]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_survive_the_scores_own_precision(dtype: type) -> None:
    """A tied score stays rejected when the threshold is compared in the precision of the scores."""
    scores: Floats = np.repeat(np.array([0.1, 0.2, 0.3], dtype), 100)
    grid = threshold_grid(scores)
    assert [int((scores >= dtype(t)).sum()) for t in grid] == [100, 200, 300]


def test_constant_scores_leave_accept_all() -> None:
    """A constant score has one threshold: everything."""
    assert threshold_grid(np.full(100, 0.5)).tolist() == [-np.inf]


@given(SCORES, st.integers(0, 2**32 - 1))
def test_tally_is_the_plain_count(scores: Floats, seed: int) -> None:
    """Counts and sums equal those of the accepted rows, threshold by threshold."""
    rng = np.random.default_rng(seed)
    agreed, value = rng.random(len(scores)) < 0.9, rng.random(len(scores))
    grid = threshold_grid(scores)
    tally = ThresholdCounts.of(scores, grid)
    assert tally.counts(agreed).tolist() == [int(agreed[accepts(scores, t)].sum()) for t in grid]
    assert tally.sums(value) == pytest.approx(np.array([value[accepts(scores, t)].sum() for t in grid]))


@given(st.integers(1, 60), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_cascade_is_answered_by_the_first_stage_that_accepts(n: int, stages: int, seed: int) -> None:
    """At each threshold a row counts once, with the agreement of the first stage whose score reaches it."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, (stages, n)).astype(float)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    agreed = rng.random(scores.shape) < 0.7
    grid = threshold_grid(scores)
    expected_n, expected_k = [], []
    for t in grid:
        answers = accepts(scores, t)
        first = answers.argmax(axis=0)
        any_stage = answers.any(axis=0)
        expected_n.append(int(any_stage.sum()))
        expected_k.append(int((agreed[first, np.arange(n)] & any_stage).sum()))
    tally = ThresholdCounts.of(scores, grid)
    assert tally.counts(np.ones(n, bool)).tolist() == expected_n
    assert tally.counts(agreed).tolist() == expected_k


def test_power_is_zero_without_rows_and_one_with_many_sure_ones() -> None:
    """Under n_min rows nothing can pass; many rows that surely agree pass surely."""
    n = np.array([0, n_min(0.95, 0.05) - 1, 100_000])
    assert power(n, np.ones(3), 0.95, 0.05).tolist() == [0.0, 0.0, 1.0]


def test_walk_stops_at_the_first_failure() -> None:
    """Nothing looser than the first failing threshold is tested, be it ever so good."""
    n, k = np.array([100, 200, 300]), np.array([100, 150, 300])
    steps = walk(np.array([3.0, 2.0, -np.inf]), n, k, p_values(k, n, 0.9), start=0, delta=0.05)
    assert [step.threshold for step in steps] == [3.0, 2.0]
    assert steps[0].p < 0.05 < steps[1].p


def test_a_last_stage_with_one_score_for_all_rows_can_answer_them() -> None:
    """Between the first stage's best rows and "all by the first stage" there is "the rest by the last stage"."""
    first, n = np.linspace(0.0, 1.0, 400), 400
    scores, agreed = np.stack([first, np.full(n, 0.5)]), np.stack([first >= 0.5, np.full(n, True)])
    grid = cascade_grid(scores)
    tally = ThresholdCounts.of(scores, grid)
    assert (n, n) in zip(tally.counts(np.ones(n, bool)).tolist(), tally.counts(agreed).tolist(), strict=True)
    assert np.all(np.diff(grid) < 0)


@given(arrays(np.float64, st.tuples(st.just(1), st.integers(0, 300)), elements=st.one_of(st.floats(-5, 5), ODD)))
def test_one_stage_has_the_grid_of_its_scores(scores: Floats) -> None:
    """A cascade of one stage accepts the same sets of rows as the stage by itself."""
    alone, cascade = (
        {int(accepts(scores[0], t).sum()) for t in grid(scores[0])} for grid in (threshold_grid, cascade_grid)
    )
    assert alone == cascade
