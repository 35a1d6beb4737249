import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gate.worlds import most_allowed
from tracer_serve.gate.live_proof import log_proof
from tracer_serve.gate.monitor import (
    MonitorState,
    advance,
    alternatives,
    anytime_lower_bound,
    hand_over,
    log_evidence,
    update,
)
from tracer_serve.types import Bools, Ints

START = MonitorState(alpha=0.95, delta=0.05)
OUTCOMES = st.lists(st.sampled_from([True, True, True, True, False]), max_size=120)


def after(outcomes: list[bool], state: MonitorState = START) -> MonitorState:
    """Feed the outcomes in order."""
    for agree in outcomes:
        state = update(state, agree)
    return state


def plain_evidence(outcomes: list[bool], alpha: float) -> float:
    """M as gate.md, section 6, defines it, without logs."""
    errors = sorted({min(0.98, (1 - alpha) * m) for m in (1.1, 1.2, 1.5, 2, 3, 5, 8, 12)})
    bets, used, j = [0.0] * len(errors), 0.0, 0
    for i, agree in enumerate(outcomes):
        w = 0.0
        if i % 25 == 0:
            j += 1
            w = 1 / math.log2(j + 1) - 1 / math.log2(j + 2)
            used += w
        ratio = [(1 - e) / alpha if agree else e / (1 - alpha) for e in errors]
        bets = [(s + w / len(errors)) * r for s, r in zip(bets, ratio, strict=True)]
    return sum(bets) + 1 - used


@given(OUTCOMES, st.sampled_from([0.85, 0.9, 0.95, 0.99]))
def test_evidence_is_the_published_recursion(outcomes: list[bool], alpha: float) -> None:
    """The evidence in logs equals the plain recursion of gate.md, section 6."""
    state = after(outcomes, MonitorState(alpha=alpha, delta=0.05))
    assert state.evidence == pytest.approx(plain_evidence(outcomes, alpha), rel=1e-9)


@given(OUTCOMES, st.sampled_from([0.85, 0.95]))
def test_evidence_is_a_fair_game_at_the_boundary(outcomes: list[bool], alpha: float) -> None:
    """At agreement exactly alpha the next audit leaves the evidence unchanged on average, whatever went before."""
    state = after(outcomes, MonitorState(alpha=alpha, delta=0.05))
    expected = alpha * update(state, agree=True).evidence + (1 - alpha) * update(state, agree=False).evidence
    assert expected == pytest.approx(state.evidence, rel=1e-9)


@given(OUTCOMES)
def test_disagreement_is_evidence(outcomes: list[bool]) -> None:
    """A disagreement raises the evidence above what an agreement leaves."""
    state = after(outcomes)
    assert update(state, agree=False).evidence > update(state, agree=True).evidence


@given(OUTCOMES)
def test_state_survives_json(outcomes: list[bool]) -> None:
    """The state goes to strict JSON and back without loss, at every moment."""
    state = after(outcomes)
    assert MonitorState.from_json(json.loads(json.dumps(state.to_json(), allow_nan=False))) == state


def test_states_are_values() -> None:
    """An update leaves the old state as it was."""
    state = after([True, False])
    update(state, agree=False)
    assert state == after([True, False])
    assert (state.seen, state.agreements) == (2, 1)


@given(st.lists(OUTCOMES, max_size=5))
def test_a_life_of_versions_is_one_run(nights: list[list[bool]]) -> None:
    """Handed over from version to version the evidence is that of all audits in a row; each version counts its own."""
    state = START
    for outcomes in nights:
        state = after(outcomes, hand_over(state, START.alpha, START.delta))
    alone = after([agree for outcomes in nights for agree in outcomes])
    assert state.log_bets == alone.log_bets
    assert state.evidence == alone.evidence
    assert state.alarm == alone.alarm
    assert (state.seen, state.before + state.seen) == (len(nights[-1]) if nights else 0, alone.seen)


@given(OUTCOMES, OUTCOMES, st.sampled_from([0.5, 0.85, 0.95, 0.99]))
def test_another_alpha_neither_wins_nor_loses(before: list[bool], later: list[bool], alpha: float) -> None:
    """A change of alpha leaves the evidence as it is, and the game stays fair at the new alpha."""
    old = after(before)
    new = after(later, hand_over(old, alpha, 0.1))
    assert hand_over(old, alpha, 0.1).evidence == pytest.approx(old.evidence, rel=1e-9)
    expected = alpha * update(new, agree=True).evidence + (1 - alpha) * update(new, agree=False).evidence
    assert expected == pytest.approx(new.evidence, rel=1e-9)


def test_alarm_stays() -> None:
    """The alarm rings at the first crossing of 1/delta and is not taken back by later agreement."""
    state = after([False] * 10)
    assert state.alarmed_at is not None
    calm = after([True] * 500, state)
    assert (calm.alarm, calm.alarmed_at) == (True, state.alarmed_at)
    assert calm.evidence < 1 / calm.delta


def test_boosted_while_bets_are_won() -> None:
    """Audits are boosted from a few disagreements on, also after a long calm, and no longer once calm returns."""
    assert not START.boosted
    assert after([False]).boosted
    for calm in (after([True] * 100), after([True] * 24 + [False] + [True] * 2_000)):
        assert not calm.boosted
        alerted = after([False] * 3, calm)
        assert alerted.boosted
        assert not after([True] * 200, alerted).boosted


@pytest.mark.slow
def test_boosting_finds_a_drop_sooner() -> None:
    """After 5,000 calm calls, a tenth audited, a drop from .96 to .82 takes a third fewer calls than without."""
    calls = {rate: [calls_to_alarm(seed, rate) for seed in range(30)] for rate in (0.1, 0.5)}
    assert np.median(calls[0.5]) < np.median(calls[0.1]) / 1.5


def calls_to_alarm(seed: int, boosted: float) -> int:
    """Return after how many calls at .82 the alarm rings, where evidence raises the audit rate from .1 to `boosted`."""
    rng, state, call = np.random.default_rng(seed), START, 0
    while not state.alarm:
        call += int(rng.geometric(boosted if state.boosted else 0.1))
        state = update(state, bool(rng.random() < (0.96 if call <= 5_000 else 0.82)))
    return call - 5_000


def test_evidence_does_not_overflow() -> None:
    """A thousand disagreements overflow a float but not the log, and the alarm stands."""
    state = after([False] * 1000)
    assert state.evidence == math.inf
    assert math.isfinite(state.log_evidence)
    assert state.alarm


def test_alternatives_are_distinct_and_possible() -> None:
    """A lax alpha merges the alternatives that would pass .98."""
    assert alternatives(0.5).tolist() == pytest.approx([0.55, 0.6, 0.75, 0.98])
    assert len(alternatives(0.99)) == 8


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_anytime_bound_is_under_the_observed_agreement(k: int, n: int) -> None:
    """The bound lies in [0, k/n], and one more agreement never lowers it."""
    k = min(k, n)
    bound = anytime_lower_bound(k, n, 0.05)
    assert 0.0 <= bound <= (k / n if n else 0.0)
    assert anytime_lower_bound(k + 1, n + 1, 0.05) >= bound - 1e-12


def first_alarms(outcomes: Bools, alpha: float, delta: float, calm: Ints | int = 0) -> Ints:
    """Return the audit at which each run (r, n) first alarms, n + 1 for never; all runs at once."""
    runs, n = outcomes.shape
    bets = np.full((runs, len(alternatives(alpha))), -np.inf)
    first: Ints = np.full(runs, n + 1)
    for i in range(1, n + 1):
        bets = advance(bets, i, outcomes[:, i - 1], alpha)
        rings = log_evidence(bets, i) >= -math.log(delta)
        first = np.where(rings & (first > n), i, first)
    after_drop: Ints = first - calm
    return after_drop


def test_many_runs_at_once_are_the_single_ones() -> None:
    """The vectorised recursion alarms where the state does."""
    outcomes = np.random.default_rng(0).random((5, 300)) < 0.85
    alone = [after(list(map(bool, run))).alarmed_at for run in outcomes]
    assert first_alarms(outcomes, 0.95, 0.05).tolist() == alone


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "delta"), [(0.9, 0.1), (0.95, 0.05), (0.99, 0.05)])
def test_false_alarms_over_long_calm_runs(alpha: float, delta: float) -> None:
    """At agreement exactly alpha, at most delta of 1,000 runs ever alarm in 10,000 audits."""
    outcomes = np.random.default_rng(1).random((1000, 10_000)) < alpha
    assert (first_alarms(outcomes, alpha, delta) <= 10_000).sum() <= most_allowed(delta, 1000)


@pytest.mark.slow
def test_false_alarms_over_a_hundred_versions() -> None:
    """At agreement exactly alpha, 100 audits a night: carried at most delta of 400 systems ever alarm, anew half do."""
    outcomes = np.random.default_rng(4).random((400, 100, 100)) < 0.95
    carried = first_alarms(outcomes.reshape(400, -1), 0.95, 0.05) <= 10_000
    anew = (first_alarms(outcomes.reshape(-1, 100), 0.95, 0.05) <= 100).reshape(400, 100).any(axis=1)
    assert carried.sum() <= most_allowed(0.05, 400)
    assert anew.mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calm", "agreement", "published"),
    [(0, 0.9, 180), (0, 0.8, 32), (0, 0.6, 8), (2500, 0.9, 476), (2500, 0.8, 79), (2500, 0.6, 22)],
)
def test_delay_after_a_drop(calm: int, agreement: float, published: int) -> None:
    """A drop from .96 is found within a fifth of the median delay measured before, early and after long calm."""
    rng = np.random.default_rng(2)
    quality = np.where(np.arange(calm + 3000) < calm, 0.96, agreement)
    first = first_alarms(rng.random((400, len(quality))) < quality, 0.95, 0.05, calm)
    assert float(np.median(first[first > 0])) == pytest.approx(published, rel=0.2, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("agreement", [0.8, 0.95, 0.99])
def test_anytime_bound_is_never_above_the_truth(agreement: float) -> None:
    """Looking at every power of 1.3 up to 10,000 audits, the bound passes the truth in at most delta of runs."""
    rng, looks = np.random.default_rng(3), np.unique((1.3 ** np.arange(36)).astype(int))
    wrong = 0
    for _ in range(600):
        k = np.cumsum(rng.random(looks[-1]) < agreement)
        wrong += any(anytime_lower_bound(int(k[n - 1]), int(n), 0.1) > agreement for n in looks)
    assert wrong <= most_allowed(0.1, 600)


def test_a_version_just_under_alpha_is_rarely_proved_and_a_better_one_soon() -> None:
    """At agreement alpha at most delta of 400 versions are ever proved in 5,000 audits; at .97 nine in ten are."""
    alpha, rng, n = 0.95, np.random.default_rng(0), np.arange(1, 5_001)
    share = {}
    for agreement in (alpha, 0.97):
        right = np.cumsum(rng.random((400, len(n))) < agreement, axis=1)
        proofs = [
            any(log_proof(int(k), int(i), alpha) >= np.log(20) for k, i in zip(row[9::10], n[9::10], strict=True))
            for row in right
        ]
        share[agreement] = float(np.mean(proofs))
    assert share[alpha] <= 0.05
    assert share[0.97] > 0.9


def test_a_proof_stays_and_belongs_to_its_version() -> None:
    """Once proved a version stays so, whatever its later audits say; the next version starts without proof."""
    state = MonitorState(alpha=0.8, delta=0.1)
    for _ in range(60):
        state = update(state, agree=True)
    assert state.proved_at is not None
    proved = state.proved_at
    for _ in range(5):
        state = update(state, agree=False)
    assert state.proved_at == proved
    assert MonitorState.from_json(state.to_json()) == state
    assert hand_over(state, 0.8, 0.1).proved_at is None


@pytest.mark.slow
def test_a_small_excess_of_errors_is_found() -> None:
    """At agreement .945 and alpha .95, at least 95 % of 200 runs alarm within 60,000 audits."""
    outcomes = np.random.default_rng(7).random((200, 60_000)) < 0.945
    assert (first_alarms(outcomes, 0.95, 0.05) <= 60_000).mean() >= 0.95
