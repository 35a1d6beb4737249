"""Protected labels: the recall of the system that a certificate promises, and when it abstains."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.gate.worlds import most_allowed
from tracer_serve.gate.binomial import n_min, p_values
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.gate.wording import verdict_of

GATE = GateSettings(alpha=0.9, delta=0.05, protect={"hate": 0.9})
DRAWS = 600


def draw(rng: np.random.Generator, n: int, *, lost: float = 0.2, rest: float = 1.0) -> CalibrationRows:
    """Rows of which 8 % are hate; at any score a share of these is answered otherwise, and of the others 1 - `rest`.

    At threshold t the recall is 1 - lost (1 - t).
    """
    hate = rng.random(n) < 0.08
    agreed = rng.random(n) < np.where(hate, 1.0 - lost, rest)
    return CalibrationRows(rng.random(n), agreed, truth=np.where(hate, "hate", "other"))


def certified(hate: int, kept: int, **changes: Any) -> Certificate:
    """Certify 1,000 rows with one score, of which `hate` are hate and `kept` of these answered so."""
    place = np.arange(1000)
    rows = CalibrationRows(
        np.zeros(1000),
        (place >= hate) | (place < kept),
        np.full(1000, 0.99),
        truth=np.where(place < hate, "hate", "other"),
    )
    return certify(rows, replace(GATE, **changes))


def test_a_label_is_kept_as_promised() -> None:
    """The walk stops where the recall of the label can no longer be shown, although agreement still can."""
    rows = draw(np.random.default_rng(0), 4000)
    found, free = certify(rows, GATE), certify(rows, replace(GATE, protect={}))
    (hate,) = found.protected
    assert found.certified
    assert found.coverage < free.coverage
    assert hate.required <= hate.lower_bound < hate.kept / hate.rows
    assert float(p_values(np.array(hate.kept), np.array(hate.rows), 0.9)) <= 0.05
    assert "labels 'hate' at least 90 % are deferred or get that label" in verdict_of(found)


def test_deferral_keeps_a_label_that_is_never_answered() -> None:
    """A label that the surrogate never gives is promised where its rows have low scores: the teacher answers them."""
    rng = np.random.default_rng(1)
    hate = rng.random(3000) < 0.08
    rows = CalibrationRows(rng.random(3000) - hate, ~hate, truth=np.where(hate, "hate", "other"))
    found = certify(rows, GATE)
    assert found.certified
    assert found.protected[0].kept / found.protected[0].rows >= 0.9


def test_a_lost_label_abstains() -> None:
    """Where the label is lost at every threshold nothing is certified, and the verdict names it."""
    found = certified(80, 20)
    assert (found.certified, found.reason) == (False, "recall")
    assert "20 of 80 rows of 'hate'" in verdict_of(found)


@pytest.mark.parametrize("hate", [0, 10, 28, 29])
def test_too_few_rows_of_a_label_promise_nothing(hate: int) -> None:
    """At .9 and delta .05 it takes 29 rows of the label, all of them kept; fewer abstain and say how many lack."""
    found = certified(hate, hate)
    assert n_min(0.9, 0.05) == 29
    assert found.certified is (hate == 29)
    if hate < 29:
        assert (found.reason, found.n) == ("insufficient", 0)
        assert found.rows_needed >= 29 - hate
        assert f"a recall of 90 % for 'hate' ({hate} rows)" in verdict_of(found)


def test_recall_that_is_not_yet_shown_asks_for_more_rows() -> None:
    """A recall above what is required on too few rows is short of rows, and that many more would pass."""
    found = certified(60, 57)
    assert found.reason == "recall"
    more = 1 + found.rows_needed / 1000
    assert float(p_values(np.array(int(57 * more)), np.array(int(60 * more)), 0.9)) <= 0.05


def test_repeats_of_one_message_do_not_show_recall() -> None:
    """Forty copies of one message are one row of the label."""
    place = np.arange(1000)
    rows = CalibrationRows(
        np.zeros(1000),
        np.ones(1000, bool),
        np.full(1000, 0.99),
        truth=np.where(place < 40, "hate", "other"),
        groups=np.where(place < 40, 0, place),
    )
    assert certify(rows, GATE).reason == "insufficient"
    assert certify(replace(rows, groups=None), GATE).certified


def test_labels_are_needed_to_protect_one() -> None:
    """Rows without the teacher's labels are refused."""
    with pytest.raises(ValueError, match="needs the teacher's label"):
        certify(CalibrationRows(np.zeros(100), np.ones(100, bool)), GATE)


def broken(found: Certificate, lost: float) -> bool:
    """Whether a certificate handles rows at a recall under what it promises."""
    return found.certified and 1.0 - lost * (1.0 - max(found.threshold, 0.0)) < 0.9 - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("n", [1500, 6000])
def test_a_protected_label_is_lost_in_at_most_delta_of_the_worlds(n: int) -> None:
    """Where only recall limits the threshold, it is truly under its promise in at most delta of the draws."""
    rng, wrong, certified = np.random.default_rng(n), 0, 0
    for seed in range(DRAWS):
        found = certify(draw(rng, n), replace(GATE, seed=seed))
        wrong, certified = wrong + broken(found, 0.2), certified + found.certified
    assert wrong <= most_allowed(0.05, DRAWS)
    assert certified > 0.8 * DRAWS


@pytest.mark.slow
def test_all_promises_together_keep_delta() -> None:
    """Two labels and agreement that become too low at one and the same threshold: any is broken in at most delta."""
    rng, wrong, gate = np.random.default_rng(3), 0, replace(GATE, protect={"hate": 0.9, "threat": 0.9})
    for seed in range(DRAWS):
        score, kind = rng.random(3000), rng.random(3000)
        truth = np.select([kind < 0.08, kind < 0.16], ["hate", "threat"], "other")
        agreed = rng.random(3000) < np.where(truth == "other", 1.0 - 0.324 * (1.0 - score), 0.8)
        found = certify(CalibrationRows(score, agreed, truth=truth), replace(gate, seed=seed))
        threshold = max(found.threshold, 0.0)
        agreement = 0.84 * (1.0 - 0.162 * (1.0 - threshold)) + 0.16 * 0.8  # .9 at .5, as the recall of both labels
        wrong += found.certified and (threshold < 0.5 - 1e-9 or agreement < 0.9 - 1e-9)
    assert wrong <= most_allowed(0.05, DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize("tested", [True, False])
def test_a_gate_that_trusts_the_measured_recall_is_caught(tested: bool) -> None:
    """The loosest threshold whose measured recall is .9 breaks the promise far more often; the same count sees it."""
    rng, wrong = np.random.default_rng(5), 0
    for seed in range(DRAWS):
        rows = draw(rng, 1500)
        if tested:
            wrong += broken(certify(rows, replace(GATE, seed=seed)), 0.2)
            continue
        own = np.asarray(rows.truth == "hate")
        lost = np.sort(rows.scores[own & ~rows.agreed])[::-1]
        allowed = int(0.1 * own.sum())
        threshold = lost[allowed] if len(lost) > allowed else 0.0
        wrong += bool(1.0 - 0.2 * (1.0 - threshold) < 0.9)
    assert (wrong <= most_allowed(0.05, DRAWS)) is tested
