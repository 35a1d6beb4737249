"""One refit: what it may calibrate on, what it may replace, and what it leaves behind when it is disturbed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import LABELS, TEXTS, rows_now, tiny_task, write_rows
from tracer_serve.cli.commands._prepare import prepare
from tracer_serve.cli.commands._serving import begin
from tracer_serve.cli.main import main
from tracer_serve.config.load import Task
from tracer_serve.errors import BusyError, FitError
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.lifecycle.gate_state.closing import Closing, close_gate
from tracer_serve.lifecycle.gate_state.reopening import ATTEMPT, next_attempt
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.publish import may_serve
from tracer_serve.lifecycle.refit import refit
from tracer_serve.lifecycle.refit_session import PROGRESS
from tracer_serve.lifecycle.teacher_change import note_teacher
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE
from tracer_serve.storage.traces.users import Users
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.storage.versions.store import all_manifests


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A tiny task with version 1."""
    made = tiny_task(tmp_path)
    assert refit(made).activated
    return made


@pytest.fixture
def store(task: Task) -> Iterator[TraceStore]:
    """Its store."""
    opened = store_of(task)
    yield opened
    opened.close()


def test_a_repair_calibrates_on_what_came_after_the_alarm(task: Task, store: TraceStore) -> None:
    """Without rows after the alarm nothing is written; with them a version is that knows its moment."""
    closing = close_gate(store, version=1, audits=20, agreements=5, evidence=30.0)
    with pytest.raises(FitError, match=r"0 may calibrate.*since the gate closed"):
        refit(task, "alarm")
    assert open_versions(task).numbers() == [1]
    store.traces.add(rows_now(40))
    outcome = refit(task, "alarm")
    assert (outcome.activated, outcome.traces) == (True, len(TEXTS) + 40)
    assert outcome.certificate.rows + outcome.certificate.pilot == 40
    assert open_versions(task).manifest(2).after == closing.after
    assert [entry.outcome for entry in store.refits.recent()] == ["certified", "failed", "certified"]


def test_a_teacher_that_erred_for_a_while_holds_a_repair_up_for_as_long(task: Task, store: TraceStore) -> None:
    """Each second attempt takes the newer half of the rows since the alarm, and later refits what followed."""
    refit(task)
    closing = close_gate(store, version=1, audits=20, agreements=5, evidence=30.0)
    store.traces.add(
        rows_now(60, teacher_label="red")[1::2] + rows_now(60, teacher_label="blue")[::2]
    )  # the drift goes on
    store.traces.add(rows_now(140))
    for attempts, certifies in ((1, False), (2, True)):
        store.values.put(ATTEMPT, {"repair": {"cause": "drift", "rows": 1, "attempts": attempts}})
        repair = refit(task, "alarm")
        assert repair.certificate.certified == repair.activated == certifies
    store.traces.add(rows_now(60))
    later, versions = refit(task, "cron"), open_versions(task)
    assert later.certificate.certified
    assert versions.manifest(later.version).after == versions.manifest(repair.version).after > closing.after


def test_a_series_certifies_on_no_row_twice(tmp_path: Path) -> None:
    """With `spend: series` the second certificate rests on newer rows only, and waits until there are some."""
    series = tiny_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1, "spend": "series"})
    refit(series)
    with pytest.raises(FitError, match="only 0 may calibrate"):
        refit(series)
    store = store_of(series)
    store.traces.add(rows_now(60))
    store.close()
    outcome = refit(series)
    assert outcome.certificate.rows + outcome.certificate.pilot == 60
    first, second = all_manifests(open_versions(series))
    assert first.spent == first.last_trace < second.spent == second.last_trace


def test_rows_stay_spent_whatever_came_between(tmp_path: Path) -> None:
    """A version that is no part of the series, and tested nothing, gives no row back to it."""
    series = {"alpha": 0.8, "delta": 0.1, "spend": "series"}
    refit(tiny_task(tmp_path, gate=series))
    between = refit(tiny_task(tmp_path, gate={"alpha": 0.99, "delta": 0.01}))
    assert between.certificate.reason == "insufficient"
    with pytest.raises(FitError, match="only 0 may calibrate"):
        refit(tiny_task(tmp_path, gate=series))


def test_a_label_that_failed_its_test_has_spent_its_rows(tmp_path: Path) -> None:
    """With `per_class` a certificate that no label passed has looked at the rows as any other."""
    write_rows(tmp_path / "rows.jsonl", TEXTS, ["red", "blue"] * (len(TEXTS) // 2))
    series = tiny_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1, "spend": "series", "per_class": True})
    assert refit(series).certificate.reason == "disagreement"
    with pytest.raises(FitError, match="only 0 may calibrate"):
        refit(series)


def other_teacher(task: Task, **traces: Any) -> Task:
    """Return the task with a teacher that says crimson for red."""
    folder = task.file.parent
    write_rows(folder / "other.jsonl", TEXTS, [label.replace("red", "crimson") for label in LABELS])
    teacher = {"type": "offline", "file": ["other.jsonl"]}
    return tiny_task(folder, teacher=teacher, traces={"import": ["rows.jsonl"], **traces})


def test_a_fresh_migration_waits_for_new_labels(task: Task) -> None:
    """Labels of the former teacher certify nothing any more; version 1 stays, in shadow."""
    changed = other_teacher(task)
    with pytest.raises(FitError, match="since the teacher changed"):
        refit(changed)
    assert open_versions(task).current() == 1


def test_a_paired_migration_certifies_at_once_and_shows_what_moved(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new teacher's labels of old texts calibrate, the table counts what moved, and nothing is asked twice."""
    changed = other_teacher(task, migrate="paired", migrate_rows=70)
    assert main(["refit", str(changed.file)]) == 0
    printed = capsys.readouterr().out
    assert main(["refit", str(changed.file), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    moved = sum(label == "red" for label in LABELS[-70:])
    assert f"relabelled 70 old texts; {moved} of 70 labels changed" in printed
    assert f"{moved} x red -> crimson" in printed
    report = json.loads((open_versions(changed).folder(2) / "report.json").read_text(encoding="utf-8"))
    assert report["migration"]["moves"] == [{"from": "red", "to": "crimson", "rows": moved}]
    assert report["migration"]["share"] == pytest.approx(moved / 70, rel=1e-5)
    assert again["moved"] is None
    versions, store = open_versions(changed), store_of(changed)
    assert versions.current() == 3
    assert versions.manifest(2).teacher == note_teacher(store, versions.manifest(2).teacher).fingerprint
    assert versions.manifest(2).traces == len(TEXTS)
    assert store.tallies.counts().total.rows == len(TEXTS) + 70
    store.close()


def test_a_paired_migration_asks_about_no_text_from_before_an_alarm(task: Task, store: TraceStore) -> None:
    """Another teacher's labels of old texts are no reason to trust that traffic is again what it was."""
    close_gate(store, version=1, audits=20, agreements=5, evidence=30.0)
    changed = other_teacher(task, migrate="paired")
    with pytest.raises(FitError, match="only 0 may calibrate"):
        refit(changed, "teacher")
    assert store.tallies.counts().total.rows == len(TEXTS)


def test_what_may_replace_a_certified_version(task: Task) -> None:
    """A certified one may; with `must_keep_coverage` only if it covers as much; an uncertified one never may."""
    versions, teacher = open_versions(task), open_versions(task).manifest(1).teacher
    closing = Closing("~", version=1, at="", audits=9, agreements=2, evidence=50.0)
    file = versions.folder(1) / "certificate.json"
    found = CERTIFICATE.validate_json(file.read_bytes())
    strict = tiny_task(task.file.parent, versions={"must_keep_coverage": True})

    def may(task: Task, certificate: Certificate, closed: Closing | None = None, by: str = teacher) -> bool:
        return may_serve(task, versions, certificate, Requirements(by, task.spec.gate, closed))

    less, none = replace(found, coverage=found.coverage - 0.01), replace(found, certified=False)
    assert [may(task, certificate) for certificate in (found, less, none)] == [True, True, False]
    assert [may(strict, certificate) for certificate in (found, less, none)] == [True, False, False]
    # a void certificate's coverage is no measure, and yet an uncertified version does not replace it
    assert [may(strict, certificate, closing) for certificate in (less, none)] == [True, False]
    assert may(strict, less, by="another")
    raised = tiny_task(task.file.parent, gate={"alpha": 0.85, "delta": 0.1}, versions={"must_keep_coverage": True})
    assert [may(raised, certificate) for certificate in (less, none)] == [True, False]


def test_a_refuted_version_does_not_outlive_a_refit_that_fails(task: Task) -> None:
    """Where refit and audits both disagree too often the current version goes; either alone is no reason."""
    versions = open_versions(task)
    requirements = Requirements(versions.manifest(1).teacher, task.spec.gate)
    found = CERTIFICATE.validate_json((versions.folder(1) / "certificate.json").read_bytes())
    alpha, delta = found.alpha, found.delta

    def replaced(reason: str, agreements: int) -> bool:
        failed = replace(found, certified=False, reason=reason)
        return may_serve(task, versions, failed, requirements, MonitorState(alpha, delta, 100, agreements))

    under, over = round(100 * alpha) - 1, round(100 * alpha) + 1
    assert replaced("disagreement", under)
    assert not replaced("disagreement", over)
    assert not replaced("insufficient", under)
    few = MonitorState(alpha, delta, 2, 0)
    assert not may_serve(task, versions, replace(found, certified=False, reason="disagreement"), requirements, few)


def test_attempts_after_an_alarm_share_delta(task: Task, store: TraceStore) -> None:
    """The j-th attempt since the last alarm spends 6 delta / (pi^2 j^2); one that tested nothing does not count."""
    closing = close_gate(store, version=1, audits=20, agreements=5, evidence=30.0)
    versions, delta, coin = open_versions(task), task.spec.gate.delta, np.random.default_rng(0)
    for rows, attempt in ((10, 1), (90, 1), (90, 2)):
        store.traces.add([replace(row, teacher_label=str(coin.choice(["red", "blue"]))) for row in rows_now(rows)])
        assert next_attempt(versions, closing) == attempt
        found = refit(task, "alarm").certificate
        assert found.reason == ("insufficient" if rows == 10 else "disagreement")
        assert found.attempt == attempt
        assert found.delta == pytest.approx(6 * delta / (np.pi * attempt) ** 2)


def test_a_refit_that_lost_its_lease_changes_nothing_that_serves(task: Task, store: TraceStore) -> None:
    """A refit that slept so long that another one was let in gives up before it writes."""

    def robbed(stage: str, _done: int, _total: int, _left_s: float | None = None, /) -> None:
        if stage == "certifying":
            holder = store.leases.holder(LEASE)
            assert holder is not None
            store.leases.release(LEASE, holder)
            assert store.leases.acquire(LEASE, "the other", 60)

    with pytest.raises(BusyError, match="lost its lease"):
        refit(task, progress=robbed)
    assert open_versions(task).numbers() == [1]
    assert store.leases.holder(LEASE) == "the other"


def test_progress_is_visible_to_everybody_while_it_lasts(task: Task, store: TraceStore) -> None:
    """The store tells the stage of a refit that runs, and nothing after it."""
    seen: list[Any] = []
    refit(task, progress=lambda *_: seen.append(store.values.get(PROGRESS)))
    told = [value for value in seen if value]
    assert told
    assert set(told[0]) == {"stage", "done", "total", "left_s"}
    assert store.values.get(PROGRESS) is None


def test_forget_removes_rows_and_marks_what_was_fitted_on_them(
    task: Task, store: TraceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's rows go; versions that had read them are marked, an older one is not, a refit knows them no more."""
    store.traces.add(rows_now(10, metadata={"user": "ann"}))
    refit(task)
    store.traces.add(rows_now(3, metadata={"user": "ann"}))
    assert main(["forget", str(task.file), "--user", "ann", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 13, "versions": {"2": 10}}
    assert [manifest.forgotten for manifest in all_manifests(open_versions(task))] == [0, 10]
    open_versions(task).verify(2)
    outcome = refit(task)
    assert (outcome.traces, open_versions(task).manifest(3).forgotten) == (len(TEXTS), 0)
    assert main(["forget", str(task.file), "--user", "ann"]) == 0
    assert "0 rows of user ann" in capsys.readouterr().out


def test_forget_cut_short_leaves_no_version_unmarked(
    task: Task, store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before the rows went, the versions are marked already; repeated, the rows go."""
    store.traces.add(rows_now(10, metadata={"user": "ann"}))
    refit(task)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Users, "forget", cut)
        assert main(["forget", str(task.file), "--user", "ann"]) == 130
    assert open_versions(task).manifest(2).forgotten == 10
    assert len(store.users.trace_ids("ann")) == 10
    assert main(["forget", str(task.file), "--user", "ann"]) == 0
    assert store.users.trace_ids("ann") == []


def test_imports_may_be_told_to_train_only(tmp_path: Path) -> None:
    """A file that is no fair sample of traffic trains and never certifies, by the command and by the spec."""
    made = tiny_task(tmp_path, traces={})
    assert main(["import", str(made.file), str(tmp_path / "rows.jsonl"), "--train-only"]) == 0
    with pytest.raises(FitError, match="96 labelled traces train, but only 0 may calibrate"):
        refit(made)
    (tmp_path / "b").mkdir()
    by_spec = tiny_task(tmp_path / "b", traces={"import": ["rows.jsonl"], "import_fair": False})
    with pytest.raises(FitError, match="only 0 may calibrate"):
        refit(by_spec)


def test_an_import_of_rows_from_before_the_alarm_repairs_nothing(task: Task, store: TraceStore) -> None:
    """A log that goes on growing brings its new lines, and those that it dates before the closing only train."""
    old, new = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    close_gate(store, version=1, audits=20, agreements=5, evidence=30.0)
    rows = [{"input": f"{TEXTS[i]} {i}", "teacher": LABELS[i], "ts": str(old if i % 2 else new)} for i in range(96)]
    with (task.file.parent / "rows.jsonl").open("a", encoding="utf-8") as log:
        log.writelines(f"{json.dumps(row)}\n" for row in rows)
    outcome = refit(task, "alarm")
    assert (outcome.traces, outcome.certificate.rows + outcome.certificate.pilot) == (2 * 96, 48)


def test_imports_are_redacted(tmp_path: Path) -> None:
    """Nothing that the redactors take out reaches the store through a file."""
    texts = [f"{text} ann@mail.example" for text in TEXTS]
    write_rows(tmp_path / "rows.jsonl", texts)
    made = tiny_task(tmp_path, traces={"import": ["rows.jsonl"], "redact": ["pii"]})
    refit(made)
    store = store_of(made)
    assert {trace.input for trace in store.traces.labelled()} == {f"{text} [email]" for text in TEXTS}
    store.close()


def start(task: Task) -> None:
    """Do what `serve` does before it serves."""
    begin(task, asdict(prepare(task)))


def test_a_second_server_does_not_fail_while_the_first_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where another process writes version 1 at this moment, a server starts without one, and says so."""
    made = tiny_task(tmp_path)
    store = store_of(made)
    assert store.leases.acquire(LEASE, "somebody elsewhere", 60)
    start(made)
    assert "another refit is under way (somebody elsewhere)" in capsys.readouterr().out
    assert open_versions(made).current() is None
    store.close()


def test_a_server_says_at_its_start_that_the_teacher_changed(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary names the closed gate, the reason and what opens it; with the former teacher it does not."""
    start(other_teacher(task))
    printed = " ".join(capsys.readouterr().out.split())
    assert "CLOSED, everything goes to the teacher: teacher_changed" in printed
    assert "traces.migrate: paired" in printed
    start(tiny_task(task.file.parent))
    assert "CLOSED" not in capsys.readouterr().out


def test_a_promise_raised_in_the_yaml_is_certified_anew(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    """The start says which key asks for more and what to do; the refit replaces the version, and the gate is open."""
    raised = tiny_task(task.file.parent, gate={"alpha": 0.85, "delta": 0.1})
    start(raised)
    printed = " ".join(capsys.readouterr().out.split())
    assert "CLOSED, everything goes to the teacher: promise_changed: gate.alpha is 0.85" in printed
    assert "with `tracer-serve refit`" in printed
    assert refit(raised, "promise").activated
    start(raised)
    assert "CLOSED" not in capsys.readouterr().out
    start(tiny_task(task.file.parent))
    assert "CLOSED" not in capsys.readouterr().out
