"""A rare label that the surrogate never gives: the report warns of it, and no advice pushes it out further."""

import numpy as np
import pytest

from tests.report.conftest import Case, blobs, case_of, make_task
from tracer_serve.gate.binomial import n_min
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
    assert "Lowest recall of a label</button></dt>" in page


def test_its_rows_are_no_teacher_mistakes_unless_the_teacher_contradicts_itself(rare: Case) -> None:
    """Cards of a rare label are not counted for review, but where a near-duplicate got the surrogate's label."""
    cards = [card | {"suspicion": 0.9} for card in rare.report["cards"]["cards"] if card["teacher"] == "rare"]
    assert cards
    assert all("is rare" in card["caution"] for card in cards)

    def review(**change: str) -> list[str]:
        changed = rare.report | {"cards": {"cards": [card | {"contradicted_by": None} | change for card in cards]}}
        return [action["risk"] for action in actions_of(changed) if action["action"] == "review"]

    assert review() == []
    (risk,) = review(contradicted_by="the same text")
    assert f"takes {len(cards)} of" in risk
    assert "from 'rare'" in risk


def test_contradictions_are_near_duplicates_with_the_surrogates_label() -> None:
    """A text that the teacher labelled twice, differently, is evidence on the card of the row that differs."""
    texts, labels, vectors = blobs(400, 4, seed=5, spread=0.5)
    labels = labels.astype("<U12")
    twin = next(i for i in range(1, 400) if labels[i] == labels[0])
    texts[twin], vectors[twin], labels[twin] = f"{texts[0]}!", vectors[0], "rare"
    cards = case_of(make_task(), texts, labels, vectors, np.arange(0)).report["cards"]["cards"]
    (card,) = [card for card in cards if card["teacher"] == "rare"]
    assert card["contradicted_by"] == texts[0]


def test_a_lost_label_is_offered_a_promise_that_its_rows_can_support(rare: Case) -> None:
    """The first advice protects it, at a recall that this many rows can show; with too few rows it asks for more."""
    first = rare.report["actions"][0]
    assert (first["action"], first["title"]) == ("protect", "Promise the recall of 'rare' (gate.protect)")
    promised = float(first["gains"].split("at least ")[1].split(" %")[0]) / 100
    row = next(row for row in rare.report["certificate"]["recalls"] if row["label"] == "rare")
    assert row["recall"] < promised <= rare.report["certificate"]["alpha"]
    assert n_min(promised, rare.report["certificate"]["delta"]) <= row["rows"]
    few = [row | {"rows": 3} if row["label"] == "rare" else row for row in rare.report["certificate"]["recalls"]]
    less = rare.report | {"certificate": rare.report["certificate"] | {"recalls": few}}
    assert actions_of(less)[0]["title"] == "Collect traces of 'rare'"


def test_every_action_says_what_it_brings_and_what_it_risks(rare: Case) -> None:
    """Gain and risk are sentences; the risk of more coverage names the label that loses most."""
    assert all(action["gains"].endswith(".") and action["risk"].endswith(".") for action in rare.report["actions"])
    ahead = {"traces": 1800, "coverage": 1.0, "low": 0.9, "high": 1.0}
    headline = rare.report["headline"] | {"coverage": 0.5}
    found = actions_of(rare.report | {"headline": headline, "plateau": {"forecast": ahead}})
    collect = next(action for action in found if action["action"] == "collect")
    assert collect["gain"] == 0.5
    assert "'rare', now the lowest" in collect["risk"]


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
