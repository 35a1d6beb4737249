"""Renamed, merged and split labels: which old rows stay evidence, and for whom."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.server.worlds import make_task, serving
from tests.support.stub_llm import StubLLM
from tests.support.tiny import BY_TEXT, LABELS, TEXTS
from tracer_serve.components.factory import teacher_fingerprint
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError, SpecError
from tracer_serve.gate.wording import promise_of
from tracer_serve.lifecycle.gate_state.reopening import reopening_of
from tracer_serve.lifecycle.gate_state.state import Reason
from tracer_serve.lifecycle.refit import RefitOutcome, refit
from tracer_serve.lifecycle.training_set import labelled_rows
from tracer_serve.storage.traces import new_id
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.types import Trace

TINY: dict[str, Any] = {"surrogates": ["knn"], "acceptors": ["top1"], "fit": {"folds": 2}}


@pytest.fixture
def first(tmp_path: Path, stub_llm: StubLLM) -> tuple[RefitOutcome, Task]:
    """A certified version with the labels red and blue, and rows that say which teacher labelled them."""
    task = changed(tmp_path, stub_llm, ["red", "blue"])
    with closing(store_of(task)) as store:
        now, teacher = datetime.now(UTC), teacher_fingerprint(task)
        facts: dict[str, Any] = {"label_source": "import", "teacher_fingerprint": teacher}
        store.traces.add(
            Trace(new_id(), now, task.spec.name, text, label, **facts)
            for text, label in zip(TEXTS, LABELS, strict=True)
        )
    return refit(task), task


def changed(folder: Path, stub: StubLLM, labels: list[str], **changes: Any) -> Task:
    """Write the task with these labels; `changes` are its label_changes."""
    gate = BY_TEXT | {"alpha": 0.8, "delta": 0.1}
    return make_task(folder, stub, labels=labels, gate=gate, label_changes=changes, **TINY)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("changes", "present"),
    [
        ({"rename": {"red": "crimson"}}, ["blue", "crimson"]),
        ({"merge": {"colour": ["red", "blue"]}}, ["colour"]),
    ],
)
def test_renames_and_merges_keep_the_evidence(
    tmp_path: Path, stub_llm: StubLLM, changes: dict[str, Any], present: list[str]
) -> None:
    """Old rows calibrate under their present labels, also if `label_changes` is written after a start without it."""
    found = []
    for said in ({}, changes, changes):
        task = changed(tmp_path, stub_llm, present, **said)
        with closing(store_of(task)) as store:
            found.append(labelled_rows(task, store))
    assert [rows.calibrates.all() for rows in found] == [False, True, True]
    assert sorted(set(found[-1].labels.tolist())) == present
    assert len(found[-1]) == len(TEXTS)
    task = changed(tmp_path, stub_llm, present)
    with closing(store_of(task)) as store, pytest.raises(FitError, match="keep `label_changes` in the YAML"):
        labelled_rows(task, store)


def test_a_renamed_label_is_certified_on_the_old_rows_and_the_certificate_says_so(
    first: tuple[RefitOutcome, Task], tmp_path: Path, stub_llm: StubLLM
) -> None:
    """A refit is due at once, tests as many rows as before, and its promise names the change."""
    task = changed(tmp_path, stub_llm, ["crimson", "blue"], rename={"red": "crimson"})
    outcome = refit(task)
    assert outcome.certificate.certified
    assert outcome.certificate.rows == first[0].certificate.rows
    assert outcome.certificate.coverage == first[0].certificate.coverage
    assert "'red' was renamed to 'crimson'" in promise_of(outcome.certificate)
    assert open_versions(task).manifest(outcome.version).labels == ("blue", "crimson")


@pytest.mark.anyio
@pytest.mark.usefixtures("first")
async def test_the_old_version_does_not_answer_with_a_former_label(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Until the refit that is due, the gate is closed, and the reason names the label set."""
    task = changed(tmp_path, stub_llm, ["crimson", "blue"], rename={"red": "crimson"})
    stub_llm.default = "crimson"
    async with serving(task) as (client, runtime):
        answer = (await client.post("/v1/classify", json={"input": TEXTS[0]})).json()["data"][0]
        due = reopening_of(task.spec, runtime.store, runtime.versions)
        gate = runtime.gate
    assert (answer["decision"], answer["reason"], answer["label"]) == ("deferred", "gate_closed", "crimson")
    assert gate.reason is Reason.TEACHER_CHANGED
    assert "label_changes" in gate.message
    assert due is not None
    assert due.due


@pytest.mark.usefixtures("first")
def test_rows_from_before_a_split_only_train(tmp_path: Path, stub_llm: StubLLM) -> None:
    """None of them calibrates; those of the split label are left out unless it is among its parts."""
    apart = changed(tmp_path, stub_llm, ["rose", "brick", "blue"], split={"red": ["rose", "brick"]})
    kept = changed(tmp_path, stub_llm, ["red", "brick", "blue"], split={"red": ["red", "brick"]})
    for task, labels in ((apart, {"blue"}), (kept, {"red", "blue"})):
        with closing(store_of(task)) as store:
            rows = labelled_rows(task, store)
        assert set(rows.labels.tolist()) == labels
        assert not rows.calibrates.any()


@pytest.mark.usefixtures("first")
def test_another_model_is_another_teacher_whatever_was_renamed(tmp_path: Path, stub_llm: StubLLM) -> None:
    """`label_changes` keeps evidence only if nothing else of the teacher changed."""
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-2"}
    rename = {"rename": {"red": "crimson"}}
    task = make_task(tmp_path, stub_llm, labels=["crimson", "blue"], teacher=teacher, label_changes=rename, **TINY)
    with closing(store_of(task)) as store:
        rows = labelled_rows(task, store)
    assert set(rows.labels.tolist()) == {"crimson", "blue"}
    assert not rows.calibrates.any()


@pytest.mark.parametrize(
    ("labels", "changes", "problem"),
    [
        (["a", "b"], {"rename": {"old": "c"}}, "'c' is not among labels"),
        (["a", "b"], {"rename": {"b": "a"}}, "'b' was renamed or merged, and is still among labels"),
    ],
)
def test_changes_that_do_not_fit_the_labels_are_refused(
    tmp_path: Path, stub_llm: StubLLM, labels: list[str], changes: dict[str, Any], problem: str
) -> None:
    """The error names the label."""
    with pytest.raises(SpecError, match=problem):
        changed(tmp_path, stub_llm, labels, **changes)
