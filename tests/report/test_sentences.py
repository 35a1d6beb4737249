"""The sentences next to a report's numbers say what the numbers are."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.report.conftest import Case, Looked, blobs, case_of, make_task
from tracer_serve.components.factory import make_teacher
from tracer_serve.components.teachers.openai import OpenAI
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.certificate import StageRow
from tracer_serve.report.build import build_report
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.recommendations import actions_of
from tracer_serve.report.render import render_html
from tracer_serve.report.subgroups import Groups
from tracer_serve.types import Text


@pytest.fixture(scope="module")
def hopeless() -> Case:
    """Vectors that say little about their label: nothing certifies."""
    texts, labels, vectors = blobs(400, 4, seed=0, spread=3.0, width=8)
    return case_of(make_task(gate={"alpha": 0.99}), texts, labels, vectors, np.arange(0))


def test_words_of_a_pair_are_those_of_its_texts() -> None:
    """The rule between two texts is no word, and a group of lengths names no length that no text has."""
    rng, (_, labels, vectors) = np.random.default_rng(0), blobs(300, 3, seed=0)
    pairs: list[Text] = [(" ".join(rng.choice(list("abcdefghijklmnop"), 2 + i % 4)), f"second {i}") for i in range(300)]
    task = make_task(input="pair")
    fitted = fit_policy(task, Rows.of(pairs, labels), Looked(pairs, vectors))
    groups = Groups.of(CalibrationView.of(task, fitted, [pairs[i] for i in fitted.calibration.row]))
    names = [name for kind, name in zip(groups.kind, groups.name, strict=True) if kind == "length"]
    assert names == ["4 words", "5 words", "6 words", "7 words"]


def test_score_above_counts_lower_scores_only(small: Case) -> None:
    """A point's percentile is the share of rows with a lower score; no row lies above all, itself included."""
    scores = small.fitted.answered.score
    assert small.report["map"]["percentile"] == pytest.approx((scores[None] < scores[:, None]).mean(1), abs=6e-4)


def test_where_nothing_is_certified_no_threshold_is_blamed(hopeless: Case) -> None:
    """No sentence of an uncertified version says that a score is under a threshold."""
    assert not hopeless.report["headline"]["certified"]
    why = hopeless.report["why"]
    assert "no_certificate" in [row["cause"] for row in why["causes"]]
    assert not [row["why"] for row in why["examples"] if "threshold" in row["why"]]
    assert not [row for row in why["causes"] if row["cause"] == "unsure"]


def test_a_row_whose_neighbours_agree_on_nothing_is_no_clear_case() -> None:
    """Where labels are random no row is called a clear or weak case of a label that few of its neighbours have."""
    texts, labels, vectors = blobs(400, 12, seed=1, width=8)
    report = case_of(make_task(), texts, np.random.default_rng(1).permutation(labels), vectors, np.arange(0)).report
    words = {row["cause"]: row["words"] for row in report["why"]["causes"]}
    assert words.keys() <= {"far", "neighbours_differ", "hesitates", "scattered"}
    assert words["scattered"] == "the nearest traces agree on no label"
    said = [row["why"] for row in report["why"]["examples"] if row["cause"] == "scattered"]
    assert said
    assert all(re.search(r"label: [0-7] of 1\d carry label_", sentence) for sentence in said)


def test_a_refusal_is_never_told_that_there_is_nothing_to_do(hopeless: Case) -> None:
    """Its advice begins with what keeps the gate shut, and no monitor is said to watch."""
    diagnosed = hopeless.report["certificate"]["diagnosis"]
    assert diagnosed["cause"] == "representation"
    assert hopeless.report["actions"][0]["title"] == "Try a better embedder"
    bare = {"slices": {"disagreed": {"slices": []}, "deferred": {"slices": []}}, "cards": {"cards": []}}
    for cause in ("representation", "teacher", "rows"):
        changed = {"certificate": hopeless.report["certificate"] | {"diagnosis": diagnosed | {"cause": cause}}}
        said = str(actions_of(hopeless.report | bare | changed))
        assert "Nothing to do" not in said
        assert "monitor" not in said


def test_too_little_certified_asks_whether_it_would_do(hopeless: Case) -> None:
    """Where only gate.min_coverage is in the way, the first advice names what could be certified."""
    short = hopeless.report["certificate"] | {"reason": "coverage", "coverage": 0.48}
    first = actions_of(hopeless.report | {"certificate": short})[0]
    assert first["title"] == "Decide whether 48.0 % would be worth serving"
    assert first["gain"] == 0.48


def test_the_learning_curve_does_not_depend_on_the_speed_of_the_fit(small: Case) -> None:
    """A fit that took a hundred times as long gets the same curve; page and JSON name the size of the last refit."""
    slow = tuple(replace(candidate, seconds=100 * candidate.seconds) for candidate in small.fitted.candidates)
    plateau = build_report(small.task, replace(small.fitted, candidates=slow), small.texts, [])["plateau"]
    assert plateau == small.report["plateau"]
    assert plateau["labels_at"] == len(small.texts) // 2
    assert f"at {plateau['labels_at']}</button>" in render_html(small.report)


def test_evidence_against_a_card_is_shown_without_any_for_it(small: Case) -> None:
    """A card whose only neighbours side with the teacher shows them."""
    cards = small.report["cards"]
    card = next(card for card in cards["cards"] if card["opposing"]) | {"agreeing": []}
    report = small.report | {"cards": cards | {"cards": [card]}}
    assert "against: “" in render_html(report)


def test_a_cascade_names_which_of_its_stages_a_number_is_of(small: Case) -> None:
    """The refits are of its last stage, and so are the parts; the stages' rows are all rows, not the certificate's."""
    rows = [StageRow(name, None, 300, 290, 0.5, asked, 0.1, 1.0) for name, asked in (("a", 1.0), ("b", 0.5))]
    certificate = replace(small.fitted.certificate, stages=tuple(rows))
    fitted = replace(small.fitted, policy=replace(small.fitted.policy, certificate=certificate))
    report = build_report(small.task, fitted, small.texts, [small.report])
    assert report["plateau"]["method"].startswith("The last stage is refitted")
    assert ("Forecast" in report["plateau"]["method"]) == (report["plateau"]["forecast"] is not None)
    page = render_html(report)
    assert "In the order in which they are asked, of all 600 rows" in page
    assert "the agreement of a cascade is that of its last stage" in page
    assert "gave way to a, then b with " in page


def test_a_repair_says_so_and_blames_no_embedder(hopeless: Case) -> None:
    """After an alarm the report says that its rows are newer; it asks what changed before blaming the embedder."""
    fitted, texts = hopeless.fitted, hopeless.texts
    before = hopeless.report | {"basis": hopeless.report["basis"] | {"teacher": "one"}}
    report = build_report(hopeless.task, fitted, texts, [before], alarm="2026-11-23T03:31:07+00:00", teacher="other")
    assert report["basis"]["sentence"].endswith(
        " All came after the alarm of 2026-11-23 03:31 UTC; older ones only train."
    )
    assert report["actions"][0]["title"] == "Find out what changed at the alarm"
    assert "the teacher is another one, and only its own labels calibrate." in render_html(report)
    again = build_report(hopeless.task, fitted, texts, [before], teacher="one")
    assert "another one" not in render_html(again)


def test_lists_that_are_cut_say_so(small: Case) -> None:
    """Where flows are left out the page says how many of the disagreements the listed ones are."""
    flows = small.report["flows"]
    assert "disagreements." not in render_html(small.report)
    part = small.report | {"flows": flows | {"flows": flows["flows"][:1], "listed": flows["flows"][0]["rows"]}}
    assert f"{flows['flows'][0]['rows']} of {flows['disagreements']} disagreements." in render_html(part)
    why = small.report["why"]
    assert "the 15 most frequent pairs" not in render_html(small.report | {"why": why | {"pairs": why["pairs"][:15]}})
    assert "the 15 most frequent pairs" in render_html(small.report | {"why": why | {"pairs": 16 * why["pairs"][:1]}})


def test_rows_that_chose_the_first_test_are_accounted_for() -> None:
    """With competing surrogates the page says how many of its rows the certificate does not count."""
    texts, labels, vectors = blobs(600, 3, seed=1, spread=1.0, width=8)
    case = case_of(make_task(surrogates=["logreg", "knn"]), texts, labels, vectors, np.arange(0))
    pilot, basis = case.fitted.certificate.pilot, case.report["basis"]
    assert pilot > 0
    assert case.report["headline"]["rows"] == basis["rows"] - pilot
    assert f"leaves out {pilot} of them" in basis["sentence"]


@pytest.mark.parametrize(
    ("kind", "sure", "title", "rest"),
    [
        ("label", True, "Look at the label x", "usual. Is the label's description clear to the teacher?"),
        ("cluster", True, "Look at texts x", "usual."),
        ("label", False, "Look at the label x", "usual. It may be chance: many groups were looked at."),
    ],
)
def test_advice_on_a_slice_says_what_it_is_and_how_sure(
    small: Case, kind: str, sure: bool, title: str, rest: str
) -> None:
    """Only labels have a description to check, and a hint is not presented as a finding."""
    slices = small.report["slices"]
    worst = {"name": "x", "kind": kind, "sure": sure, "events": 5, "rows": 16, "lift": 6.0}
    changed = slices | {"disagreed": slices["disagreed"] | {"slices": [worst]}}
    action = next(one for one in actions_of(small.report | {"slices": changed}) if one["action"] == "slice")
    assert action["title"] == title
    assert action["why"].endswith(rest)


@pytest.mark.parametrize("prompt", [None, "One of {descriptions} or {labels}", "{text}: {labels}?"])
@pytest.mark.parametrize("kind", ["described", "listed", "open"])
def test_the_cost_estimate_counts_the_prompt_that_is_sent(small: Case, kind: str, prompt: str | None) -> None:
    """The estimated prompt is as long as the teacher's own messages, for closed and for open label sets."""
    described = {f"label_{i:02d}": "what a customer means who asks about this " * (i + 1) for i in range(9)}
    labels = {"described": described, "listed": list(described), "open": None}[kind]
    params = {"type": "openai", "model": "m", "price": {"prompt_per_1m": 1.0, "completion_per_1m": 1.0}}
    task = make_task(labels=labels, teacher=params | ({"prompt": prompt} if prompt else {}))
    known = CalibrationView.of(task, small.fitted, small.texts).classes.tolist()
    teacher = make_teacher(task, tuple(known))
    assert isinstance(teacher, OpenAI)
    sent = [sum(len(message["content"]) for message in teacher.prompt.messages(text)) for text in small.texts]
    money = build_report(task, small.fitted, small.texts, [])["money"]
    assert money["prompt_tokens"] == pytest.approx(np.mean(sent) / 4 + 8, rel=1e-3)


@pytest.mark.parametrize("template", ["Question: {question}", 3])
def test_a_prompt_in_another_template_language_breaks_no_report(small: Case, template: object) -> None:
    """A plugin teacher's own `prompt` parameter is priced as the default prompt."""
    price = {"prompt_per_1m": 1.0, "completion_per_1m": 1.0}
    tasks = [make_task(teacher={"type": "mine", "price": price} | extra) for extra in ({}, {"prompt": template})]
    plain, own = (build_report(task, small.fitted, small.texts, [])["money"] for task in tasks)
    assert plain == own
