import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gate.worlds import worlds
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.risk_control import certify_overall
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats


@given(st.integers(0, 400), st.floats(0.5, 0.99), st.integers(0, 2**32 - 1))
def test_accepted_disagreements_stay_in_the_allowance(n: int, alpha: float, seed: int) -> None:
    """Accepted disagreements, and one more, are at most (1 - alpha)(n + 1); one step looser they would be too many."""
    rng = np.random.default_rng(seed)
    scores, agreed = rng.random(n).round(2), rng.random(n) < 0.8
    found = certify_overall(CalibrationRows(scores, agreed), GateSettings(alpha=alpha))
    wrong, allowed = found.n - found.agreements, (1 - alpha) * (n + 1) + 1e-6
    if found.certified:
        assert wrong + 1 <= allowed
        assert found.lower_bound == alpha
        looser = scores[scores < found.threshold]
        if len(looser):
            assert (~agreed[scores >= looser.max()]).sum() + 1 > allowed
    else:
        assert found.threshold == math.inf


@pytest.mark.parametrize(("rows", "certified", "needed"), [(19, True, 0), (18, False, 1)])
def test_rows_until_anything_can_pass(rows: int, certified: bool, needed: int) -> None:
    """At .95, nineteen agreeing rows suffice, as the next one may be the one wrong in twenty."""
    found = certify_overall(CalibrationRows(np.zeros(rows), np.ones(rows, bool)), GateSettings(alpha=0.95))
    assert (found.certified, found.rows_needed) == (certified, needed)
    assert type(found.certified) is bool  # a numpy one cannot be written to disk


def test_reasons_to_abstain() -> None:
    """No finite score, disagreement on all that scores highest, and too little coverage are told apart."""
    agreed = np.arange(100) % 2 == 0

    def reason(scores: Floats, agreed: Bools, least: float = 0.0) -> str:
        return certify_overall(CalibrationRows(scores, agreed), GateSettings(alpha=0.95, min_coverage=least)).reason

    assert reason(np.full(100, np.nan), agreed) == "ineligible"
    assert reason(np.zeros(100), agreed) == "disagreement"
    assert reason(np.arange(100.0), agreed, 0.9) == "coverage"


def _linear_expectation(scores: Floats, agreed: Bools, alpha: float) -> float:
    """The loosest threshold with sum(disagreement - (1 - alpha)) + alpha <= 0: the rule that is left out."""
    order = np.argsort(-scores, kind="stable")
    passes = np.flatnonzero(np.cumsum(~agreed[order] - (1 - alpha)) + alpha <= 0)
    return float(scores[order][passes[-1]]) if len(passes) else math.inf


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 400])
def test_share_of_wrong_answers_is_kept_on_average(n: int) -> None:
    """Over 2,000 draws, on average at most 1 - alpha of all requests is handled with a disagreement, in every world."""
    alpha, draws, rng = 0.9, 2000, np.random.default_rng(n)
    for world in worlds(alpha):
        shares = []
        for _ in range(draws):
            threshold = certify_overall(CalibrationRows(*world.draw(rng, n)), GateSettings(alpha=alpha)).threshold
            scores, agreed = world.draw(rng, 500)
            shares.append((accepts(scores, threshold) & ~agreed).mean())
        assert np.mean(shares) <= 1 - alpha + 3 * np.std(shares) / np.sqrt(draws), world.name


@pytest.mark.slow
def test_the_linear_expectation_rule_breaks_its_promise() -> None:
    """What gate.overall does not offer fails: in a fifth of draws it handles, and a tenth of that disagrees, at .95."""
    rng, draws = np.random.default_rng(0), 2000
    handled = sum(
        _linear_expectation(rng.random(500), rng.random(500) < 0.9, 0.95) < math.inf  # agreement .90 at every threshold
        for _ in range(draws)
    )
    assert handled / draws > 0.1
