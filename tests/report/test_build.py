"""The numbers of a report are those of the calibration rows."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import Case, blobs, case_of, make_task
from tracer_serve.gate.binomial import exact_interval, lower_bounds
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def decisions(case: Case) -> Any:
    """What the certificate decides on the calibration rows, from the stored arrays alone."""
    rows, found = case.fitted.answered, case.fitted.certificate
    return found.certified & rows.eligible & np.isfinite(rows.score) & (rows.score >= found.threshold)


def test_headline_is_the_certificates_and_a_recount_of_the_stored_rows(small: Case) -> None:
    """Coverage, agreement and savings equal the certificate and a recount."""
    found, headline = small.fitted.certificate, small.report["headline"]
    handled = decisions(small)
    assert found.certified
    agreed = handled & small.fitted.answered.agreed
    assert headline["handled"] == found.n
    assert headline["rows"] == found.rows == len(handled) - found.pilot
    assert found.n <= handled.sum() <= found.n + found.pilot
    assert found.agreements <= agreed.sum() <= found.agreements + found.pilot
    assert headline["coverage"] == pytest.approx(found.n / found.rows, rel=1e-5)
    assert headline["teacher_calls_saved"] == pytest.approx(found.n / found.rows * 0.97, rel=1e-5)


def test_json_holds_only_finite_numbers(small: Case) -> None:
    """The report is JSON proper and comes back the same."""
    assert json.loads(json.dumps(small.report, allow_nan=False)) == small.report


def test_every_top_level_key_is_documented(small: Case) -> None:
    """docs/report.md has a row for each key, and no row for a key that is not there."""
    documented = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(documented) == set(small.report)


def test_class_table_is_a_recount(small: Case) -> None:
    """Rows, handled, answers and agreements per label equal a plain recount."""
    rows, seen, handled = small.fitted.calibration, small.fitted.answered, decisions(small)
    for row in small.report["classes"]["rows"]:
        own, said = rows.classes[rows.truth] == row["label"], rows.classes[seen.top] == row["label"]
        assert (row["rows"], row["handled"]) == (own.sum(), (own & handled).sum())
        assert (row["answers"], row["agreements"]) == ((said & handled).sum(), (said & handled & seen.agreed).sum())


def test_curve_passes_through_the_certificate(small: Case) -> None:
    """At the certified threshold the curve has the certificate's counts; bounds are the exact ones."""
    curve, found = small.report["curve"], small.fitted.certificate
    agreed = small.fitted.answered.agreed[decisions(small)]
    at = min(range(len(curve["n"])), key=lambda i: abs(curve["n"][i] - len(agreed)))
    assert abs(curve["n"][at] - len(agreed)) <= found.pilot
    assert curve["agreement"][at] == pytest.approx(agreed.mean(), abs=0.01)
    bounds = lower_bounds(np.array(curve["agreements"]), np.array(curve["n"]), found.delta)
    assert curve["lower_bound"] == pytest.approx(bounds, rel=1e-5)


def test_own_alpha_carries_the_certificate_and_coverage_falls_with_alpha(small: Case) -> None:
    """The slider's own stop is the certificate; a laxer alpha never covers less here."""
    what, found = small.report["whatif"], small.fitted.certificate
    own = what["own"]
    assert what["alpha"][own] == found.alpha
    assert what["coverage"][own] == pytest.approx(found.coverage, rel=1e-5)
    assert what["coverage"][0] >= what["coverage"][own] >= what["coverage"][-1]


def test_flows_and_deferrals_add_up(small: Case) -> None:
    """Flows sum to the disagreements, causes to the deferred rows."""
    flows, why = small.report["flows"], small.report["why"]
    assert sum(f["rows"] for f in flows["flows"]) == flows["listed"]
    assert flows["disagreements"] == (~small.fitted.answered.agreed).sum()
    assert all(f["rows"] == f["handled"] + f["deferred"] for f in flows["flows"])
    assert sum(c["rows"] for c in why["causes"]) == why["explained"] == (~decisions(small)).sum()


def test_contrast_pairs_are_the_nearest_of_their_label(small: Case) -> None:
    """The first pair of each label has the largest cosine between its handled and its deferred rows."""
    rows, handled, vectors = small.fitted.calibration, decisions(small), small.fitted.vectors
    seen = set()
    for pair in small.report["contrast"]:
        if pair["label"] in seen:
            continue
        seen.add(pair["label"])
        own = rows.classes[rows.truth] == pair["label"]
        assert pair["cosine"] == pytest.approx((vectors[own & handled] @ vectors[own & ~handled].T).max(), abs=1e-5)
    assert seen


def test_money_is_net_of_audits_and_absent_without_a_price(small: Case) -> None:
    """Money follows the price; without one there is none."""
    money = small.report["money"]
    assert money["saved_per_1000"] == pytest.approx(
        money["all_teacher_per_1000"] * small.report["headline"]["teacher_calls_saved"], rel=1e-4
    )
    task = make_task(teacher={"type": "openai", "model": "m"})
    assert build_report(task, small.fitted, small.texts, [])["money"] is None


def test_what_changed_names_labels_that_moved_and_new_ones(small: Case) -> None:
    """A label whose handled rate fell is named, a new label too, and the history has both versions."""
    before = json.loads(json.dumps(small.report))
    first, second = sorted(before["classes"]["rows"], key=lambda row: -int(row["handled"]))[:2]
    first["handled"], first["handled_share"] = 0, 0.0
    before["classes"]["rows"].remove(second)
    changes = build_report(small.task, small.fitted, small.texts, [before])["changes"]
    assert first["label"] in [row["label"] for row in changes["moved"]]
    assert changes["new_labels"] == [second["label"]]
    assert len(changes["history"]) == 2


def test_a_report_of_another_schema_is_not_compared_with(small: Case) -> None:
    """Earlier reports of an unknown schema are left out instead of misread."""
    assert build_report(small.task, small.fitted, small.texts, [{"schema": 0}])["changes"]["since"] is None


@pytest.mark.parametrize(
    ("rows", "labels", "gate"),
    [(24, 2, {}), (200, 4, {"alpha": 0.995}), (120, 1, {}), (300, 3, {"mode": "strict"})],
    ids=["tiny", "abstains", "one label", "strict"],
)
def test_odd_fits_still_report(rows: int, labels: int, gate: dict[str, Any]) -> None:
    """Too few rows, an abstaining gate, one label only and a held-out certificate all give a whole report."""
    texts, names, vectors = blobs(rows, labels, seed=3)
    case = case_of(make_task(gate=gate), texts, names, vectors, np.empty(0, np.int64))
    assert json.dumps(case.report, allow_nan=False)
    assert case.report["basis"]["rows"] == case.fitted.calibration.fair.sum()
    assert case.report["actions"]
    if not case.fitted.certificate.certified:
        assert case.report["headline"]["coverage"] == 0.0
        assert case.report["headline"]["lower_bound"] is None


def test_pairs_of_texts_report_too() -> None:
    """A pair input is shown as one text and exported whole."""
    texts, labels, vectors = blobs(200, 3, seed=4, spread=1.0, width=8)
    pairs = [(str(text), "a hypothesis") for text in texts]
    case = case_of(make_task(input="pair"), pairs, labels, vectors, np.empty(0, np.int64))
    card = case.report["cards"]["cards"][0]
    assert card["text"].endswith(" ⟷ a hypothesis")
    assert card["input"][1] == "a hypothesis"


@pytest.mark.slow
def test_many_rows_are_sampled_and_the_page_stays_small() -> None:
    """Of 6,000 rows the map draws 5,000, and the page is far under 5 MB."""
    texts, labels, vectors = blobs(6000, 40, seed=9, spread=1.0, width=16)
    report = case_of(make_task(), texts, labels, vectors, np.empty(0, np.int64)).report
    assert (len(report["map"]["x"]), report["map"]["rows"]) == (5000, 6000)
    assert len(render_html(report).encode()) < 3e6


def test_texts_of_another_length_are_refused(small: Case) -> None:
    """A text per calibration row, or an error that counts."""
    with pytest.raises(ValueError, match="2 texts for 600"):
        build_report(small.task, small.fitted, ["a", "b"], [])


def test_cards_name_their_traces(small: Case) -> None:
    """A card has the id of the row that it shows; without ids it has none."""
    ids = [f"trace-{i}" for i in small.fitted.calibration.row]
    cards = build_report(small.task, small.fitted, small.texts, [], ids=ids)["cards"]["cards"]
    assert [small.texts[int(card["id"].removeprefix("trace-"))] for card in cards] == [card["input"] for card in cards]
    assert {card["id"] for card in small.report["cards"]["cards"]} == {None}


def test_exact_interval_covers_what_it_says() -> None:
    """The interval of 0 of 10 and of 10 of 10 are the closed forms of Clopper and Pearson."""
    low, high = exact_interval(np.array([0, 10]), np.array([10, 10]))
    assert (low[0], high[1]) == (0.0, 1.0)
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 10))
    assert low[1] == pytest.approx(0.025 ** (1 / 10))
    assert math.isclose(high[0], 1 - low[1])


def test_labels_that_moved_between_teachers_are_reported(small: Case) -> None:
    """The tables add up to what was found, and without another teacher there are none."""
    found = {"before": "a", "after": "b", "asked": 50, "failed": 2, "cost": 0.5}
    moves = [["red", "pink", 6], ["blue", "red", 3]]
    report = build_report(small.task, small.fitted, small.texts, [], found | {"moves": moves})
    migration = report["migration"]
    assert (migration["moved"], migration["answered"], migration["share"]) == (9, 48, 9 / 48)
    assert [(m["from"], m["to"], m["rows"]) for m in migration["moves"]] == [("red", "pink", 6), ("blue", "red", 3)]
    assert sum(row["left"] for row in migration["labels"]) == sum(row["came"] for row in migration["labels"]) == 9
    assert "9 of 48 labels moved" in render_html(report)
    assert small.report["migration"] is None


def test_members_votes_are_of_rows_they_have_not_seen() -> None:
    """A blend's members differ more on deferred rows than on handled ones, and every listed row has a real split."""
    texts, labels, vectors = blobs(600, 6, seed=0, spread=1.0, width=8)
    blend = {"type": "blend", "members": ["logreg", {"type": "knn", "k": 5}]}
    case = case_of(make_task(surrogates=[blend]), texts, labels, vectors, np.empty(0, np.int64))
    members = case.report["members"]
    assert members["names"] == ["logreg", "knn"]
    assert members["deferred"]["share"] > members["handled"]["share"]
    assert members["deferred"]["rows"] + members["handled"]["rows"] <= len(texts)
    assert members["examples"]
    for row in members["examples"]:
        assert row["decision"] == "deferred"
        assert len({vote["label"] for vote in row["votes"]}) == 2
    assert f"{100 * members['deferred']['share']:.1f} %" in render_html(case.report)


def test_a_surrogate_without_members_has_no_votes(small: Case) -> None:
    """A surrogate without members has no section of votes."""
    assert small.report["members"] is None
