"""A rare label that the surrogate never gives: the report warns of it, and no advice pushes it out further."""

import numpy as np
import pytest

from tests.report.conftest import Case, blobs, case_of, make_task
from tracer_serve.report.recommendations import actions_of
from tracer_serve.report.render import render_html


@pytest.fixture(scope="module")
def rare() -> Case:
    """Four clear labels, and a fifth that the teacher gives to a twentieth of the rows of the first."""
    texts, labels, vectors = blobs(900, 4, seed=0, spread=0.5)
    first = np.flatnonzero(labels == "label_00")
    labels = labels.astype("<U12")
    labels[first[::5]] = "rare"
    return case_of(make_task(gate={"alpha": 0.9}), texts, labels, vectors, np.arange(0))


def test_a_lost_label_is_in_headline_table_and_verdict(rare: Case) -> None:
    """The label's recall is the headline's lowest, its row shows it, and the verdict warns in words on the page."""
    headline, page = rare.report["headline"], render_html(rare.report)
    assert headline["certified"]
    assert (headline["lowest_recall"]["label"], headline["lowest_recall"]["recall"] < 0.5) == ("rare", True)
    row = next(row for row in rare.report["classes"]["rows"] if row["label"] == "rare")
    assert row["recall"] == pytest.approx(1 - row["handled_share"], abs=1e-5)  # none of the handled ones is right
    assert "Warning: of" in headline["verdict"]
    assert "Lowest recall of a label: rare" in page


def test_its_rows_are_no_teacher_mistakes(rare: Case) -> None:
    """Cards of a rare label that is poorly learned say so, and are not counted for review."""
    cards = [card for card in rare.report["cards"]["cards"] if card["teacher"] == "rare"]
    assert cards
    assert all("is rare" in card["caution"] for card in cards)
    sure = rare.report | {"cards": {"cards": [card | {"suspicion": 0.9} for card in cards]}}
    assert "review" not in {action["action"] for action in actions_of(sure)}
    plain = rare.report | {"cards": {"cards": [card | {"suspicion": 0.9, "caution": None} for card in cards]}}
    assert "review" in {action["action"] for action in actions_of(plain)}


def test_no_advice_to_lower_alpha_where_that_loses_a_label(rare: Case) -> None:
    """A lower alpha that would add coverage is advised, but not where another label's recall falls by it."""
    what = rare.report["whatif"]
    own, steps = what["own"], len(what["alpha"])
    more = [0.9] * own + [0.5] * (steps - own)
    kept, lost = ([["rare"]] * steps, [["rare", "other"]] * own + [["rare"]] * (steps - own))
    found = [
        {
            action["action"]
            for action in actions_of(rare.report | {"whatif": what | {"coverage": more, "low_recalls": low}})
        }
        for low in (kept, lost)
    ]
    assert ["alpha" in actions for actions in found] == [True, False]
