"""Recall of the system per teacher label: what it counts, and which labels it warns of."""

from dataclasses import replace

import numpy as np
import pytest

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.certify import certify
from tracer_serve.gate.recall import low_recalls, recall_table
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.gate.wording import recall_warning, verdict_of

NAMES = np.array(["hate", "neither", "unused"])


def moderated(rare: int, kept: int) -> Certificate:
    """A certificate at .9 that handles all of 1,000 rows, of which `rare` are hate and `kept` of these answered so."""
    truth = (np.arange(1000) >= rare).astype(int)
    agreed = (truth == 1) | (np.arange(1000) < kept)
    found = certify(CalibrationRows(np.zeros(1000), agreed, np.full(1000, 0.99)), GateSettings(alpha=0.9))
    return replace(found, recalls=recall_table(NAMES, truth, np.ones(1000, bool), agreed))


def test_deferred_rows_count_as_recalled() -> None:
    """Recall loses only the rows that are handled under another label; labels without rows are left out."""
    truth, handled = np.repeat([0, 1], [4, 6]), np.array([True, True, False, False] + [True] * 6)
    agreed = np.array([True, False, False, True] + [True] * 6)
    hate, neither = recall_table(NAMES, truth, handled, agreed)
    assert (hate.label, hate.rows, hate.handled, hate.right, hate.recall) == ("hate", 4, 2, 1, 0.75)
    assert hate.low < 0.75 < hate.high
    assert (neither.recall, neither.high) == (1.0, 1.0)


def test_a_rare_label_that_is_lost_is_warned_of() -> None:
    """A certificate over .9 whose label of 6 % is never answered says so in the verdict."""
    found = moderated(60, 0)
    assert found.certified
    assert [row.label for row in low_recalls(found)] == ["hate"]
    assert "60 are answered with another label (recall 0.0 %)" in verdict_of(found)


@pytest.mark.parametrize(("rare", "kept"), [(60, 50), (2, 1)])
def test_chance_and_good_labels_raise_no_warning(rare: int, kept: int) -> None:
    """A label near alpha, and one with so few rows that its recall may be alpha, are not warned of."""
    assert recall_warning(moderated(rare, kept)) == ""


def test_nothing_certified_warns_of_nothing() -> None:
    """Where everything is deferred no label loses a row."""
    assert recall_warning(replace(moderated(60, 0), certified=False)) == ""
