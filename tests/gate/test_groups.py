"""Near-duplicates are no independent evidence."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.certify import certify
from tracer_serve.gate.group_sample import numbered, one_each
from tracer_serve.gate.risk_control import certify_overall
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Ints

GATE = GateSettings(alpha=0.95, delta=0.05)


def accept_all(agreed: Bools, groups: Ints) -> Certificate:
    """Certify rows with one score."""
    return certify(CalibrationRows(np.zeros(len(agreed)), agreed, np.full(len(agreed), 0.98), groups=groups), GATE)


@given(st.lists(st.integers(-3, 6), max_size=40), st.integers(0, 2**32 - 1))
def test_one_row_of_each_group_is_marked(groups: list[int], seed: int) -> None:
    """Every group has exactly one marked row, whatever the groups are called."""
    number = numbered(np.array(groups, np.int64), len(groups))
    marked = one_each(number, seed)
    assert sorted(number[marked].tolist()) == list(range(len(set(groups))))


def test_groups_of_another_length_are_refused() -> None:
    """Groups that are not those of the rows are an error with both numbers."""
    with pytest.raises(ValueError, match="3 groups for 4 rows"):
        numbered(np.zeros(3, np.int64), 4)


def test_a_burst_counts_as_one_row() -> None:
    """59 bursts of ten agreeing rows certify at .95, 58 of them are ten rows short."""
    enough, short = (accept_all(np.ones(10 * n, bool), np.arange(10 * n) // 10) for n in (59, 58))
    assert (enough.certified, enough.rows, enough.groups, enough.n) == (True, 590, 59, 590)
    assert enough.lower_bound == pytest.approx(0.05 ** (1 / 59))
    assert (short.certified, short.reason, short.rows_needed) == (False, "insufficient", 10)


def test_a_frequent_message_counts_as_often_as_it_comes() -> None:
    """A message that makes a tenth of the traffic and is always wrong stops a certificate that messages alone allow."""
    groups = np.append(np.arange(900), np.full(100, 900))
    found = accept_all(groups < 900, groups)
    assert (found.certified, found.reason, found.n - found.agreements) == (False, "disagreement", 100)


def test_a_pilot_takes_whole_bursts() -> None:
    """No burst has rows both in the pilot and in the certificate."""
    groups = np.arange(4000) // 4
    scores = np.random.default_rng(0).random(4000)
    found = certify(CalibrationRows(scores, np.ones(4000, bool), groups=groups), GATE)
    assert found.pilot % 4 == 0
    assert found.pilot > 0
    assert found.groups == 1000 - found.pilot // 4


def test_classes_and_the_overall_promise_count_bursts_once() -> None:
    """The other two certificates are as strict: a hundred rows of one burst certify nothing."""
    burst, rows = np.zeros(100, np.int64), np.ones(100, bool)
    answers = np.full(100, "yes")
    overall = certify_overall(CalibrationRows(np.zeros(100), rows, groups=burst), GateSettings(alpha=0.95))
    assert (overall.certified, overall.reason, overall.rows_needed) == (False, "insufficient", 1800)
    each = certify(
        CalibrationRows(np.zeros(100), rows, rows + 0.0, answers=answers, groups=burst), replace(GATE, per_class=True)
    )
    assert (each.certified, each.reason, each.groups) == (False, "insufficient", 1)
