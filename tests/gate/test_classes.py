import math
from dataclasses import replace

import numpy as np
import pytest

from tracer_serve.gate.binomial import lower_bounds
from tracer_serve.gate.certify import certify
from tracer_serve.gate.per_class import (
    class_floor,
    class_thresholds,
    floor_eligible,
    with_class_table,
)
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats, Labels

GATE = GateSettings(alpha=0.9, delta=0.05)
AGREEMENT = {"good": 0.99, "fair": 0.93, "bad": 0.5}


def traffic(n: int = 6000, seed: int = 0) -> tuple[Labels, Floats, Bools]:
    """Three predicted classes, one of which is far below alpha; the score tells within a class only."""
    rng = np.random.default_rng(seed)
    answers = rng.choice(np.array([*AGREEMENT, "rare"]), n, p=[0.5, 0.3, 0.197, 0.003])
    scores = rng.random(n)
    chance = np.array([AGREEMENT.get(str(answer), 1.0) for answer in answers])
    return answers, scores, rng.random(n) < np.minimum(1.0, chance + 0.05 * (scores - 0.5))


def test_table_sums_to_the_certificate() -> None:
    """The marginal certificate's rows, n and agreements are the sums of its table, worst class first."""
    answers, scores, agreed = traffic()
    found = with_class_table(
        certify(CalibrationRows(scores, agreed, scores), GateSettings(alpha=0.8, delta=0.05)), answers, scores, agreed
    )
    assert found.certified
    assert sum(row.rows for row in found.classes) == found.rows
    assert (sum(row.n for row in found.classes), sum(row.agreements for row in found.classes)) == (
        found.n,
        found.agreements,
    )
    assert found.classes[0].label == "bad"
    assert {row.reason for row in found.classes} == {"marginal"}


def test_table_leaves_out_ineligible_rows() -> None:
    """Rows that a guard stopped are in no class's accepted count."""
    answers, scores, agreed = traffic()
    eligible = answers != "bad"
    found = certify(CalibrationRows(scores, agreed, scores, eligible=eligible), GATE)
    table = {row.label: row for row in with_class_table(found, answers, scores, agreed, eligible).classes}
    assert (table["bad"].n, table["good"].n > 0) == (0, True)


def test_each_class_has_its_own_certificate() -> None:
    """Per class: good classes are handled, a bad one and one with few rows defer, each with its reason."""
    answers, scores, agreed = traffic()
    found = certify(CalibrationRows(scores, agreed, answers=answers), replace(GATE, per_class=True))
    table = {row.label: row for row in found.classes}
    assert found.certified
    assert found.per_class
    assert [table[name].certified for name in ("good", "fair", "bad", "rare")] == [True, True, False, False]
    assert (table["bad"].reason, table["rare"].reason) == ("disagreement", "insufficient")
    assert table["rare"].rows_needed == 29 - table["rare"].rows > 0
    assert found.n == table["good"].n + table["fair"].n
    assert found.coverage == found.n / found.rows
    assert found.lower_bound == min(table["good"].lower_bound, table["fair"].lower_bound)


def test_class_thresholds_follow_the_policys_classes() -> None:
    """Each class of the policy gets its own threshold; one never predicted, or not certified, handles nothing."""
    answers, scores, agreed = traffic()
    found = certify(CalibrationRows(scores, agreed, answers=answers), replace(GATE, per_class=True))
    table = {row.label: row.threshold for row in found.classes}
    thresholds = class_thresholds(found, np.array(["bad", "good", "unseen"]))
    assert thresholds.tolist() == [math.inf, table["good"], math.inf]


def test_a_marginal_certificate_has_one_threshold() -> None:
    """Without `per_class` all classes share the threshold; without a certificate nothing is handled."""
    _, scores, agreed = traffic()
    found = certify(CalibrationRows(scores, agreed, scores), GateSettings(alpha=0.8, delta=0.05))
    none = certify(CalibrationRows(scores, ~agreed, scores), GATE)
    assert class_thresholds(found, np.array(["a", "b"])).tolist() == [found.threshold] * 2
    assert class_thresholds(none, np.array(["a", "b"])).tolist() == [math.inf] * 2


def test_nothing_certified_says_the_nearest_way_out() -> None:
    """Where no class passes, the reason and the traffic that would let one class pass are given."""
    answers = np.array(["a"] * 10 + ["b"] * 20)
    found = certify(CalibrationRows(np.zeros(30), np.ones(30, bool), answers=answers), replace(GATE, per_class=True))
    assert (found.certified, found.reason, found.threshold) == (False, "insufficient", math.inf)
    assert found.rows_needed == math.ceil((29 - 20) * 30 / 20)


def test_no_rows_at_all() -> None:
    """Without rows the per-class certificate abstains as the marginal one does."""
    found = certify(
        CalibrationRows(np.empty(0), np.empty(0, bool), answers=np.empty(0, np.str_)), replace(GATE, per_class=True)
    )
    assert (found.certified, found.reason, found.rows_needed) == (False, "insufficient", 29)


def test_little_certified_traffic_is_not_deployed() -> None:
    """`min_coverage` counts the certified classes' rows among all."""
    answers, scores, agreed = traffic()
    found = certify(CalibrationRows(scores, agreed, answers=answers), replace(GATE, min_coverage=0.95, per_class=True))
    assert (found.certified, found.reason) == (False, "coverage")
    assert 0.5 < found.coverage < 0.95


def test_class_floor_is_a_clopper_pearson_bound() -> None:
    """A class passes the floor just where its exact bound is above it; a class without rows does not."""
    answers = np.repeat([0, 1], [100, 10])
    agreed = np.concatenate([np.arange(100) < 92, np.ones(10, bool)])
    bounds = lower_bounds(np.array([92, 10]), np.array([100, 10]), 0.05)
    assert class_floor(answers, agreed, 3, floor=0.8, delta=0.05).tolist() == [True, False, False]
    assert bounds[0] > 0.8 > bounds[1]


@pytest.mark.parametrize("label", [True, False])
def test_own_label_does_not_decide_whether_a_row_counts(label: bool) -> None:
    """A row's eligibility under the floor does not change with any label of its own fold."""
    rng = np.random.default_rng(0)
    answers, fold = rng.integers(0, 3, 300), rng.integers(0, 5, 300)
    agreed = rng.random(300) < 0.9
    before = floor_eligible(answers, agreed, fold, 3, floor=0.8, delta=0.05)
    changed = np.where(fold == 2, label, agreed)
    after = floor_eligible(answers, changed, fold, 3, floor=0.8, delta=0.05)
    assert np.array_equal(before[fold == 2], after[fold == 2])
