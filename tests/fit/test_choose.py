"""The choice among candidates gains nothing from luck."""

import numpy as np
import pytest

from tracer_serve.fit.choose import Candidate, choose, reach, translate
from tracer_serve.fit.crossfit import OutOfFold
from tracer_serve.gate.certify import certify
from tracer_serve.records import Bools


def candidate(agreed: Bools, score: np.ndarray[tuple[int], np.dtype[np.float64]], number: int = 0) -> Candidate:
    n = len(agreed)
    oof = OutOfFold(np.zeros(n, int), np.zeros(n, int), agreed, np.zeros(n), ())
    return Candidate(number, 0, oof, score, np.ones(n, bool))


def test_reach_is_the_share_that_passes() -> None:
    """With perfect agreement on the safer half and none below, just that half is in reach."""
    agreed = np.r_[np.ones(500, bool), np.zeros(500, bool)]
    assert reach(np.arange(1000)[::-1].astype(float), agreed, np.ones(1000, bool), 0.95, 0.05) == pytest.approx(
        0.5, abs=0.02
    )


def test_reach_of_nothing_is_nothing() -> None:
    """NaN scores and ineligible rows are out of reach."""
    agreed = np.ones(100, bool)
    assert reach(np.full(100, np.nan), agreed, np.ones(100, bool), 0.9, 0.05) == 0.0
    assert reach(np.zeros(100), agreed, np.zeros(100, bool), 0.9, 0.05) == 0.0


def test_the_better_candidate_is_chosen() -> None:
    """A clearly better candidate wins in every fold and keeps its own scores."""
    rng = np.random.default_rng(0)
    n = 2000
    good, bad = candidate(rng.random(n) < 0.97, rng.random(n), 0), candidate(rng.random(n) < 0.8, rng.random(n), 1)
    choice, reaches = choose([bad, good], rng.integers(0, 5, n), np.ones(n, bool), 0.95, 0.05)
    assert choice.candidate is good
    assert reaches[1] > reaches[0]
    np.testing.assert_array_equal(choice.score, good.score)


def test_translation_keeps_ranks() -> None:
    """The safest tenth on one scale is the safest tenth on the other; NaN stays NaN."""
    source, target = np.arange(100.0), np.arange(100.0) * 7 + 3
    carried = translate(np.array([95.0, 5.0, np.nan]), source, target)
    assert carried[:2].tolist() == [95 * 7 + 3, 5 * 7 + 3]
    assert np.isnan(carried[2])


@pytest.mark.slow
@pytest.mark.parametrize("naive", [False, True])
def test_choosing_the_luckiest_of_many_keeps_delta(naive: bool) -> None:
    """Twelve useless candidates just under alpha certify falsely at most as often as delta; naively, far more."""
    alpha, delta, n, draws, false = 0.95, 0.05, 1500, 400, 0
    rng = np.random.default_rng(7)
    for _ in range(draws):
        fold = rng.integers(0, 5, n)
        pool = [candidate(rng.random(n) < alpha - 0.001, np.zeros(n), i) for i in range(12)]
        choice, _ = choose(pool, fold, np.ones(n, bool), alpha, delta)
        agreed = choice.candidate.oof.agreed if naive else choice.agreed
        predicted = np.full(n, alpha)
        false += certify(np.zeros(n), agreed, predicted, alpha=alpha, delta=delta, mode="cross_fit").certified
    limit = draws * delta + 3 * np.sqrt(draws * delta * (1 - delta))
    assert (false > limit) if naive else (false <= limit)
