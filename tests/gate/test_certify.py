import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gate.worlds import World, worlds
from tracer_serve.gate.binomial import lower_bounds, p_values
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.certify import certify
from tracer_serve.gate.fixed_sequence import accepts, path
from tracer_serve.gate.settings import CalibrationRows, GateSettings, spent_delta
from tracer_serve.types import Bools, Floats

GATE = GateSettings(alpha=0.95, delta=0.05)
EASY = World("easy", lambda u: u, lambda u: 1.0 - 0.2 * (1.0 - u) ** 2)


def constant(n: int, agreeing: int, eligible: Bools | None = None, **changes: Any) -> Certificate:
    """Certify n rows with one score, of which `agreeing` agree."""
    rows = CalibrationRows(np.zeros(n), np.arange(n) < agreeing, np.full(n, 0.98), eligible)
    return certify(rows, replace(GATE, **changes))


def test_59_of_59_certify_everything() -> None:
    """At .95 and delta .05, 59 agreements without a disagreement certify accept-all."""
    found = constant(59, 59)
    assert (found.certified, found.reason, found.threshold, found.coverage) == (True, "certified", -math.inf, 1.0)
    assert found.lower_bound == pytest.approx(0.05 ** (1 / 59))


def test_58_of_58_are_one_row_short() -> None:
    """One row fewer abstains and says that one more is needed."""
    found = constant(58, 58)
    assert (found.certified, found.reason, found.rows_needed, found.threshold) == (False, "insufficient", 1, math.inf)
    assert found.walk == ()


def test_constant_score_is_all_or_nothing() -> None:
    """A constant score with too many disagreements accepts nothing, and says what was seen."""
    found = constant(1000, 940)
    assert (found.certified, found.reason, found.n, found.agreements) == (False, "disagreement", 1000, 940)
    assert (found.coverage, found.rows_needed, len(found.walk)) == (0.0, 0, 1)
    assert found.lower_bound == pytest.approx(float(lower_bounds(940, 1000, 0.05)))


def test_rows_needed_at_the_observed_agreement_would_pass() -> None:
    """Where agreement is above alpha but rows are too few to show it, the number of rows that would do is said."""
    found = constant(100, 97)
    assert found.reason == "disagreement"
    more = constant(100 + found.rows_needed, math.floor((100 + found.rows_needed) * 0.97))
    assert found.rows_needed > 0
    assert more.certified


def test_no_rows_need_n_min() -> None:
    """Without a row, n_min are needed."""
    found = certify(CalibrationRows(np.empty(0), np.empty(0, bool)), GATE)
    assert (found.certified, found.reason, found.rows_needed, found.coverage) == (False, "insufficient", 59, 0.0)


def test_rows_needed_counts_the_ineligible_share() -> None:
    """Where half of the traffic may not be accepted, twice as many rows are needed."""
    eligible = np.arange(80) % 2 == 0
    found = constant(80, 80, eligible=eligible)
    assert (found.reason, found.rows_needed) == ("insufficient", 38)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_scores_are_never_accepted(bad: float) -> None:
    """NaN and both infinities stay in the denominator of coverage and are accepted at no threshold."""
    scores = np.where(np.arange(1000) < 250, bad, 1.0)
    agreed = np.arange(1000) >= 250  # those rows disagree: were one accepted, agreements would differ from n
    found = certify(CalibrationRows(scores, agreed, np.ones(1000)), GATE)
    assert (found.certified, found.n, found.agreements, found.coverage) == (True, 750, 750, 0.75)


def test_without_a_finite_score_more_rows_do_not_help() -> None:
    """Where no row can be accepted the gate says so instead of asking for rows."""
    found = certify(CalibrationRows(np.full(100, np.nan), np.ones(100, bool), np.ones(100)), GATE)
    assert (found.certified, found.reason, found.rows_needed) == (False, "ineligible", 0)


def test_ineligible_rows_are_deferred_and_counted() -> None:
    """Rows that a guard stops are never accepted; coverage is reported with and without the guard."""
    found = constant(1000, 1000, eligible=np.arange(1000) < 600)
    assert (found.certified, found.n, found.coverage, found.coverage_unguarded) == (True, 600, 0.6, 1.0)


def test_coverage_under_the_least_abstains_and_is_reported() -> None:
    """A certificate on too little traffic deploys nothing, but its numbers stay."""
    found = constant(1000, 1000, eligible=np.arange(1000) < 100, min_coverage=0.2)
    assert (found.certified, found.reason, found.threshold) == (False, "coverage", math.inf)
    assert (found.n, found.coverage) == (100, 0.1)


@given(st.integers(0, 1500), st.integers(0, 2**32 - 1), st.sampled_from(worlds(0.9)), st.booleans())
def test_certified_means_every_step_passed(n: int, seed: int, world: World, told: bool) -> None:
    """Whatever the data: the certificate's counts are those at its threshold, with p <= delta, in an unbroken walk."""
    scores, agreed = world.draw(np.random.default_rng(seed), n)
    predicted = np.linspace(0, 1, n) if told else None
    found = certify(CalibrationRows(scores, agreed, predicted), GateSettings(alpha=0.9, delta=0.1))
    assert found.rows + found.pilot == n
    assert all(step.p <= 0.1 for step in found.walk[:-1])
    assert all(a.threshold > b.threshold and a.n <= b.n for a, b in zip(found.walk, found.walk[1:], strict=False))
    if found.certified:
        assert p_values(found.agreements, found.n, 0.9) <= 0.1
        assert found.lower_bound >= 0.9
        assert found.coverage == found.n / found.rows
        if told:
            assert found.n == accepts(scores, found.threshold).sum()


@given(st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(seed: int) -> None:
    """Permuting the rows gives the very same certificate."""
    rng = np.random.default_rng(seed)
    scores, agreed = EASY.draw(rng, 500)
    order = rng.permutation(500)
    given_order = certify(CalibrationRows(scores, agreed, EASY.agreement(scores)), GATE)
    assert certify(CalibrationRows(scores[order], agreed[order], EASY.agreement(scores[order])), GATE) == given_order


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.exp, np.arctan, lambda s: 3 * s - 7]))
def test_scale_of_scores_does_not_matter(seed: int, transform: Any) -> None:
    """A strictly rising change of the scores accepts the very same rows, pilot included."""
    scores, agreed = EASY.draw(np.random.default_rng(seed), 500)
    plain, changed = (
        certify(CalibrationRows(scores, agreed), GATE),
        certify(CalibrationRows(transform(scores), agreed), GATE),
    )
    assert (plain.n, plain.agreements, plain.pilot) == (changed.n, changed.agreements, changed.pilot)


def test_labels_do_not_decide_the_start() -> None:
    """With predictions given, the first test is the same whatever the calibration labels are."""
    rng = np.random.default_rng(1)
    scores = rng.random(800)
    starts = {
        certify(CalibrationRows(scores, rng.random(800) < q, 0.9 + 0.1 * scores), GATE).walk[0].threshold
        for q in (0.5, 0.9, 1)
    }
    assert len(starts) == 1


def test_pilot_rows_do_not_count() -> None:
    """Without predictions a twentieth of the rows is spent on the start and is in no other number."""
    scores, agreed = EASY.draw(np.random.default_rng(2), 4000)
    found = certify(CalibrationRows(scores, agreed), GATE)
    assert found.pilot == pytest.approx(200, abs=50)
    assert found.rows == 4000 - found.pilot
    assert found.certified
    assert found.coverage > 0.6


def test_few_rows_spare_the_pilot() -> None:
    """Under twice n_min rows every one of them certifies: 59 of 59 do so without predictions too."""
    found = certify(CalibrationRows(np.zeros(59), np.ones(59, bool)), GATE)
    assert (found.certified, found.pilot) == (True, 0)


def test_lower_bound_is_alpha_where_the_walk_stopped_early() -> None:
    """A walk that failed before its end proves alpha and no more; one that passed its end proves the exact bound."""
    scores, agreed = EASY.draw(np.random.default_rng(4), 3000)
    stopped = certify(CalibrationRows(scores, agreed), GATE)
    ended = constant(3000, 2960)
    assert stopped.walk[-1].p > 0.05
    assert stopped.lower_bound == 0.95
    assert ended.lower_bound == pytest.approx(float(lower_bounds(2960, 3000, 0.05)))


def test_a_useless_second_stage_does_not_cost_the_first() -> None:
    """A cascade whose second stage never scores certifies what the first stage alone does."""
    scores, agreed = EASY.draw(np.random.default_rng(5), 2000)
    predicted = EASY.agreement(scores)
    silent = np.full(2000, np.nan)
    alone = certify(CalibrationRows(scores, agreed, predicted), GATE)
    both = certify(
        CalibrationRows(np.stack([scores, silent]), np.stack([agreed, ~agreed]), np.stack([predicted, silent])), GATE
    )
    assert both == alone


def test_a_second_stage_adds_coverage() -> None:
    """Rows that the first stage leaves are handled by a second that knows them, under one certificate."""
    rng = np.random.default_rng(6)
    known = rng.random((2, 4000)) < np.array([[0.5], [0.9]])
    scores = np.where(known, 1.0, 0.0) + rng.random((2, 4000)) / 10
    agreed = rng.random((2, 4000)) < np.where(known, 0.99, 0.5)
    alone, both = certify(CalibrationRows(scores[0], agreed[0]), GATE), certify(CalibrationRows(scores, agreed), GATE)
    assert alone.coverage == pytest.approx(0.53, abs=0.04)
    assert both.coverage > 0.9
    assert both.agreements / both.n > 0.95


@given(st.floats(0.001, 0.5))
def test_series_spends_delta_and_no_more(delta: float) -> None:
    """However many certificates are made, together they spend at most delta, and nearly all of it."""
    spent = [spent_delta(delta, "series", j) for j in range(1, 2000)]
    assert delta * 0.999 < sum(spent) < delta
    assert spent_delta(delta, "per_version", 7) == delta


def test_certificate_states_what_it_spent() -> None:
    """The third certificate of a series is tested at its own delta, and says so."""
    found = constant(200, 200, spend="series", index=3)
    assert (found.spend, found.index) == ("series", 3)
    assert found.delta == pytest.approx(6 * 0.05 / (math.pi * 3) ** 2)


@pytest.mark.parametrize("changes", [{"alpha": 1.0}, {"delta": 0.0}])
def test_impossible_promises_are_refused(changes: dict[str, Any]) -> None:
    """Alpha 1 or delta 0 is refused rather than tested."""
    with pytest.raises(ValueError, match="strictly between"):
        replace(GATE, **changes)


def test_shapes_must_agree() -> None:
    """Arrays of different lengths are refused by name."""
    with pytest.raises(ValueError, match="differ in shape"):
        certify(CalibrationRows(np.zeros(3), np.ones(4, bool)), GATE)


def test_path_is_the_best_finite_stage() -> None:
    """A row's place on the path is its largest finite stage score."""
    scores: Floats = np.array([[1.0, np.nan, np.inf], [2.0, -1.0, np.nan]])
    assert path(scores).tolist()[:2] == [2.0, -1.0]
    assert np.isnan(path(scores)[2])
