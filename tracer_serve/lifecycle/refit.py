"""Refit a task: take a snapshot of the traces, fit, certify, write a version with its report, and perhaps activate it.

It runs in the calling process: the CLI's, or a subprocess of the schedule, so that it does not slow down serving. A
lease in the trace store allows one refit at a time over all workers and replicas.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tracer_serve.components.contract import check_plugins
from tracer_serve.components.factory import load_plugins, make_embedders, make_teacher, teacher_fingerprint
from tracer_serve.components.known_forms import make_forms
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.comparison import CandidateResult
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.execution import computing
from tracer_serve.fit.fit_progress import dearest_fold
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import REPORT_FOLDS, Progress, Timeline, silent
from tracer_serve.fit.teacher_noise import KEY, TeacherNoise
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.gate.settings import Ordinal
from tracer_serve.lifecycle.adopted_forms import adopted_forms
from tracer_serve.lifecycle.approval import await_approval
from tracer_serve.lifecycle.certificates import current_version
from tracer_serve.lifecycle.gate_state.closing import closing_of
from tracer_serve.lifecycle.gate_state.monitor_record import MONITOR, monitor_state
from tracer_serve.lifecycle.gate_state.reopening import attempt_of, next_attempt
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.imports import import_traces
from tracer_serve.lifecycle.publish import Fresh, may_serve, write_version
from tracer_serve.lifecycle.refit_session import lease, published, recorded
from tracer_serve.lifecycle.relabel import LabelChanges, replay
from tracer_serve.lifecycle.teacher_change import TeacherSince, note_teacher
from tracer_serve.lifecycle.training_set import Snapshot, calibrates_after, take_snapshot
from tracer_serve.protocols import Embedder
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import new_holder
from tracer_serve.storage.versions import open_versions
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.storage.versions.store import VersionStore, all_manifests, next_number

_REPORT = "writing the report"
_UNLABELLED = 20_000  # newest texts without a label; the encoder embeds each of them once
_MIGRATION = "migration.{}"
"""Key in the store: the label changes of a teacher's paired migration."""


@dataclass(frozen=True, slots=True)
class RefitOutcome:
    """The result of a refit.

    Parameters
    ----------
    version : number of the version it wrote
    activated : whether that version now serves
    waits : whether it waits for approval
    serving : the version that serves after the refit
    traces : labelled rows it was fitted on
    left_out : older ones, beyond `fit.max_traces`
    seconds : wall time
    moved : which labels changed, if a new teacher relabelled old texts
    """

    version: int
    activated: bool
    waits: bool
    serving: int | None
    certificate: Certificate
    candidates: tuple[CandidateResult, ...]
    traces: int
    seconds: float
    left_out: int = 0
    moved: LabelChanges | None = None


def refit(task: Task, trigger: str = "hand", progress: Progress = silent) -> RefitOutcome:
    """Refit a task from the traces in its store.

    Parameters
    ----------
    trigger : ``hand``, ``start``, ``cron``, ``interval``, ``new_traces``, ``new_label``, ``alarm``, ``teacher``,
        ``promise`` or ``unreadable``; recorded in the history

    Raises
    ------
    BusyError
        If another refit of this task is running, or this one lost its lease.
    FitError
        If there are too few rows to fit on.
    """
    plugins = load_plugins(task)
    check_plugins(task)
    store, holder = store_of(task), new_holder()
    try:
        with lease(store, holder) as require, recorded(store, trigger) as record, published(store, progress) as publish:
            since = note_teacher(store, teacher_fingerprint(task), task)
            import_traces(task, store)
            moved = _migrate(task, store, since, publish)
            versions, began = open_versions(task, store, holder), time.monotonic()
            timeline = Timeline.of(publish)
            with computing(task):
                fresh = _fit(task, store, versions, since, timeline, repairs=trigger == "alarm")
            require()
            timeline.step(_REPORT, _REPORT)
            number = write_version(task, versions, fresh, plugins)
            timeline.step(_REPORT, _REPORT, 1)
            require()
            became = _activate(task, store, versions, number, fresh)
            certificate = fresh.fitted.certificate
            record(number, certificate.certified)
            return RefitOutcome(
                version=number,
                activated=became == "serves",
                waits=became == "waits",
                serving=versions.current(),
                certificate=certificate,
                candidates=fresh.fitted.candidates,
                traces=len(fresh.taken.rows),
                left_out=fresh.taken.left_out,
                seconds=time.monotonic() - began,
                moved=moved,
            )
    finally:
        store.close()


def _migrate(task: Task, store: TraceStore, since: TeacherSince, progress: Progress) -> LabelChanges | None:
    """Relabel old texts with a new teacher, once, if the spec says so."""
    key = _MIGRATION.format(since.fingerprint)
    if task.spec.traces.migrate != "paired" or not since.before or store.values.get(key) is not None:
        return None
    moved = replay(task, store, since, task.spec.traces.migrate_rows, progress)
    store.values.put(key, moved.to_json())
    return moved


def _fit(
    task: Task, store: TraceStore, versions: VersionStore, since: TeacherSince, timeline: Timeline, *, repairs: bool
) -> Fresh:
    """Fit on the labelled rows up to now, and certify on the calibration rows among them."""
    closing, spent = closing_of(store), max((m.spent for m in all_manifests(versions)), default="")
    series = task.spec.gate.spend == "series"
    serving, most = versions.current(), task.spec.fit.max_traces
    tried = attempt_of(store).get("repair") if repairs else None
    began = "" if serving is None else versions.manifest(serving).after
    closed = calibrates_after(store, closing, began, 1 if tried is None else tried["attempts"])
    forms = make_forms(task, make_teacher(task))
    forms.adopt(adopted_forms(store))
    bounds = {"closed": closed, "spent": spent if series else ""}
    changes = task.spec.label_changes
    taken = take_snapshot(store, since, most=most, certified_as=forms.certified_as, changes=changes, **bounds)
    _require_fair(task, taken, since)
    noise = TeacherNoise.from_json(store.values.get(KEY))
    if noise is not None and noise.teacher != since.fingerprint:
        noise = None  # of another teacher
    timeline.plan(_REPORT, 1, expected_s=REPORT_FOLDS * dearest_fold(task, taken.rows))
    embedder, *beside = make_embedders(task, task.state / "cache")
    earlier = None if serving is None else versions.folder(serving) / "model"
    fitted = fit_policy(
        task,
        _with_unlabelled(taken.rows, store, (embedder, *beside)),
        embedder,
        timeline,
        ordinal=Ordinal(next_number(versions), next_attempt(versions, closing)),
        noise=noise,
        earlier=earlier,
        beside=beside,
    )
    migration = store.values.get(_MIGRATION.format(since.fingerprint))
    return Fresh(taken, fitted, spent, Requirements(since.fingerprint, task.spec.gate, closing), migration)


def _with_unlabelled(rows: Rows, store: TraceStore, embedders: Sequence[Embedder]) -> Rows:
    """Return the rows with the newest texts that have no label, where an embedder can learn from them."""
    if all(getattr(embedder, "encoder", None) is None for embedder in embedders):
        return rows
    known = {*rows.texts}
    return replace(rows, unlabelled=[text for text in store.traces.without_label(_UNLABELLED) if text not in known])


def _audits(task: Task, store: TraceStore, versions: VersionStore) -> MonitorState | None:
    """Return how the audits of the version that serves came out; None if none does."""
    current = current_version(versions)
    return None if current is None else monitor_state(store.values.get(MONITOR), current, task.spec.gate)


def _activate(
    task: Task, store: TraceStore, versions: VersionStore, number: int, fresh: Fresh
) -> Literal["serves", "waits", "kept"]:
    """Activate the version if it may serve, and delete versions beyond the retention; return what became of it."""
    found = fresh.fitted.certificate
    may = may_serve(task, versions, found, fresh.requirements, _audits(task, store, versions))
    waits = may and found.certified and task.spec.versions.approve
    if waits:
        await_approval(store, number)
    elif may:
        versions.activate(number)
    versions.collect(task.spec.versions.keep)
    return "waits" if waits else "serves" if may else "kept"


def _require_fair(task: Task, taken: Snapshot, since: TeacherSince) -> None:
    """Check that there are rows to certify on at all; the gate decides how many are enough."""
    fair, needed = int(taken.rows.calibrates.sum()), 2 * task.spec.fit.folds
    if fair >= needed or len(taken.rows) < needed:
        return
    why = "the gate closed" if taken.after else "the teacher changed" if since.since else "an audit was drawn"
    raise FitError(
        f"{len(taken.rows):,} labelled traces train, but only {fair} may calibrate, and {needed} are needed. Rows"
        f" calibrate since {why}, by audits (traces.audit_rate) and while everything is deferred. Serve on, then refit"
    )
