"""One refit as a plain function: snapshot the traces, fit, gate, write the version and its report, maybe activate it.

It runs in the process that calls it: the CLI's, or a subprocess that the schedule starts, so that serving keeps its
tail latency. One refit at a time over all workers and replicas, by a lease in the trace store.
"""

import json
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from tracer_serve.checks import check_plugins
from tracer_serve.components import load_plugins, make_embedder, make_redactors, teacher_fingerprint
from tracer_serve.errors import BusyError, FitError, StoreError
from tracer_serve.fit.compare import CandidateResult
from tracer_serve.fit.noise import KEY, TeacherNoise
from tracer_serve.fit.pipeline import Fitted, fit_policy
from tracer_serve.fit.rows import Progress, silent
from tracer_serve.holder import live_holder, new_holder, take_lease
from tracer_serve.load import Task
from tracer_serve.policy import CERTIFICATE
from tracer_serve.records import Certificate
from tracer_serve.redaction import redaction
from tracer_serve.replay import Moved, replay
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html
from tracer_serve.shared import open_versions
from tracer_serve.snapshot import Snapshot, take_snapshot
from tracer_serve.standing import LEASE, PROGRESS, TeacherSince, closing_of, note_teacher
from tracer_serve.traces import Refit, TraceStore, open_store
from tracer_serve.traces.importers import import_file
from tracer_serve.validity import Demands, certificate_of
from tracer_serve.versions import NEAREST, Manifest, Versions

_LEASE_S = 60.0
_TELL_S = 1.0
_SOFTWARE = ("tracer-serve", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a refit came to.

    Parameters
    ----------
    version : number of the version it wrote
    activated : whether that version now serves
    serving : the version that serves after the refit
    traces : labelled rows it was fitted on
    seconds : wall time
    moved : which labels moved, where a new teacher was asked about old texts
    """

    version: int
    activated: bool
    serving: int | None
    certificate: Certificate
    candidates: tuple[CandidateResult, ...]
    traces: int
    seconds: float
    moved: Moved | None = None


def store_of(task: Task) -> TraceStore:
    """Open the task's trace store: the shared one the spec names, or SQLite in the state folder."""
    return open_store(task.spec.traces.url or task.state / "traces.db", task.spec.name)


def versions_of(task: Task) -> Versions:
    """Return the task's versions."""
    return open_versions(task)


def import_traces(task: Task, store: TraceStore) -> int:
    """Import the files under `traces.import` that are not in the store yet; return how many rows came in."""
    spec, redact = task.spec, redaction(make_redactors(task))
    fingerprint = teacher_fingerprint(task) if spec.traces.import_ else None
    return sum(
        import_file(
            store,
            task.resolve(path),
            labels=spec.label_names,
            pair=spec.input == "pair",
            fingerprint=fingerprint,
            fair=spec.traces.import_fair,
            redact=redact,
        ).imported
        for path in spec.traces.import_
    )


def refit(task: Task, trigger: str = "hand", progress: Progress = silent) -> Outcome:
    """Refit a task from the traces in its store.

    Parameters
    ----------
    trigger : why: ``hand``, ``start``, ``cron``, ``interval``, ``new_traces``, ``new_label``, ``alarm``, ``teacher`` or
        ``promise``; kept in the history

    Raises
    ------
    BusyError
        Where another refit of this task is under way, or this one was taken for dead and its place given away.
    FitError
        Where there is too little to fit on.
    """
    plugins = load_plugins(task)
    check_plugins(task)
    store, holder = store_of(task), new_holder()
    try:
        with _lease(store, holder) as require_lease, _recorded(store, trigger) as record, _told(store, progress) as told:
            since = note_teacher(store, teacher_fingerprint(task))
            import_traces(task, store)
            moved = _migrate(task, store, since, told)
            versions = open_versions(task, store, holder)
            outcome = _refit(task, store, versions, since, told, plugins=plugins, require_lease=require_lease)
            record(outcome)
            return replace(outcome, moved=moved)
    finally:
        store.close()


def _migrate(task: Task, store: TraceStore, since: TeacherSince, progress: Progress) -> Moved | None:
    """Ask a new teacher about old texts, once, where the spec wants that."""
    key = f"migration.{since.fingerprint}"
    if task.spec.traces.migrate != "paired" or not since.before or store.get_value(key) is not None:
        return None
    moved = replay(task, store, since, task.spec.traces.migrate_rows, progress)
    store.put_value(key, moved.to_json())
    return moved


def _refit(
    task: Task,
    store: TraceStore,
    versions: Versions,
    since: TeacherSince,
    progress: Progress,
    *,
    plugins: dict[str, str],
    require_lease: Callable[[], None],
) -> Outcome:
    began = time.monotonic()
    versions = versions_of(task)
    closing, newest = closing_of(store), versions.manifests()[-1:]
    spent = max((m.spent for m in newest), default="") if task.spec.gate.spend == "series" else ""
    taken = take_snapshot(store, since, closed=closing.after if closing else "", spent=spent)
    _require_fair(task, taken, since)
    embedder = make_embedder(task, task.state / "cache")
    noise = TeacherNoise.from_json(store.get_value(KEY))
    if noise is not None and noise.teacher != since.fingerprint:
        noise = None  # of another teacher
    serving = versions.current()
    earlier = None if serving is None else versions.folder(serving) / "model"
    fitted = fit_policy(task, taken.rows, embedder, progress, index=versions.upcoming, noise=noise, earlier=earlier)
    certificate, parent = fitted.certificate, versions.current()
    require_lease()
    number = versions.write(
        lambda folder: _fill(folder, task, taken, fitted, versions),
        lambda number, files: Manifest(
            version=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=task.spec.name,
            certified=certificate.certified,
            reason=certificate.reason,
            parent=parent,
            traces=len(taken.rows),
            last_trace=taken.until,
            embedder=fitted.policy.embedder.fingerprint,
            teacher=since.fingerprint,
            plugins=plugins,
            software={"python": platform.python_version()} | {name: installed(name) for name in _SOFTWARE},
            files=files,
            labels=tuple(map(str, fitted.policy.classes)),
            after=taken.after,
            # a certificate that tested nothing, for want of rows, has looked at no row
            spent=taken.until if certificate.n or certificate.certified else spent,
        ),
    )
    require_lease()
    activated = _may_serve(task, versions, certificate, Demands(since.fingerprint, task.spec.gate, closing))
    if activated:
        versions.activate(number)
    versions.collect(task.spec.versions.keep)
    return Outcome(
        version=number,
        activated=activated,
        serving=versions.current(),
        certificate=certificate,
        candidates=fitted.candidates,
        traces=len(taken.rows),
        seconds=time.monotonic() - began,
    )


def _may_serve(task: Task, versions: Versions, found: Certificate, demands: Demands) -> bool:
    """Say whether the new version replaces the current one: a certified one does, any does where none is certified.

    A current version whose certificate is void (drift, another teacher, a higher promise) stays for shadow scoring
    until one certifies, but its coverage is no measure any more.
    """
    parent = versions.current()
    if parent is None or not (current := versions.manifest(parent)).certified:
        return True
    before = certificate_of(versions, parent)
    void = demands.void(before, current.teacher, current.after) is not None
    if not found.certified or void or not task.spec.versions.must_keep_coverage:
        return found.certified
    return found.coverage >= before.coverage


def _require_fair(task: Task, taken: Snapshot, since: TeacherSince) -> None:
    """Check that there are rows to certify on at all; how many it takes is the gate's to say."""
    fair, needed = int(taken.rows.calibrates.sum()), 2 * task.spec.fit.folds
    if fair >= needed or len(taken.rows) < needed:
        return
    why = "the gate closed" if taken.after else "the teacher changed" if since.since else "an audit was drawn"
    raise FitError(
        f"{len(taken.rows):,} labelled traces train, but only {fair} may calibrate, of at least {needed}: rows do since"
        f" {why}, by audits (traces.audit_rate) and while everything is deferred. Serve on, then refit"
    )


def _fill(folder: Path, task: Task, taken: Snapshot, fitted: Fitted, versions: Versions) -> None:
    """Write everything that belongs to a version."""
    fitted.policy.save(folder / "model")
    fitted.calibration.save(folder / "calibration.npz")
    np.save(folder / NEAREST, taken.ids[fitted.trained][fitted.policy.index.rows], allow_pickle=False)
    (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(fitted.certificate, indent=1))
    candidates = [asdict(candidate) for candidate in fitted.candidates]
    (folder / "candidates.json").write_text(json.dumps(candidates, indent=1), encoding="utf-8")
    (folder / "spec.yaml").write_text(task.source, encoding="utf-8")
    history = [versions.folder(number) / "report.json" for number in versions.numbers()]
    earlier = [json.loads(file.read_text(encoding="utf-8")) for file in history if file.is_file()]
    report = build_report(task, fitted, [taken.rows.texts[i] for i in fitted.calibration.row], earlier)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "report.html").write_text(render_html(report), encoding="utf-8")


@contextmanager
def _told(store: TraceStore, progress: Progress) -> Iterator[Progress]:
    """Pass progress on, and put it into the store once a second for everybody to see."""
    last = -_TELL_S

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        progress(stage, done, total)
        if time.monotonic() > last + _TELL_S:
            last = time.monotonic()
            with suppress(StoreError):
                store.put_value(PROGRESS, {"stage": stage, "done": done, "total": total})

    try:
        yield tell
    finally:
        with suppress(StoreError):
            store.put_value(PROGRESS, None)


@contextmanager
def _recorded(store: TraceStore, trigger: str) -> Iterator[Callable[[Outcome], None]]:
    """Keep the refit in the store's history from its start, with how it came out."""
    entry = Refit(reason=trigger)
    store.record_refit(entry)
    ended = replace(entry, outcome="failed")

    def record(outcome: Outcome) -> None:
        nonlocal ended
        word = "certified" if outcome.certificate.certified else "abstained"
        ended = replace(entry, outcome=word, version=outcome.version)

    try:
        yield record
    except KeyboardInterrupt:
        ended = replace(entry, outcome="stopped")
        raise
    finally:
        with suppress(StoreError):  # what the refit did or raised matters more than its entry
            store.record_refit(replace(ended, ended=datetime.now(UTC)))


@contextmanager
def _lease(store: TraceStore, holder: str) -> Iterator[Callable[[], None]]:
    """Hold the refit lease, renewed in the background until the block ends; yield a check that it is held still."""
    if not take_lease(store, LEASE, holder, _LEASE_S):
        raise BusyError(
            f"another refit is under way ({live_holder(store, LEASE)}); it ends by itself,"
            f" or at most {_LEASE_S:.0f} s after its process died"
        )
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_LEASE_S / 4):
            with suppress(StoreError):  # the next time it may work; whether it is held still is asked when it matters
                store.renew_lease(LEASE, holder, _LEASE_S)

    def require() -> None:
        if not store.renew_lease(LEASE, holder, _LEASE_S):
            raise BusyError("this refit was taken for dead and another one was let in; nothing of it serves")

    renewer = threading.Thread(target=renew, name="refit-lease", daemon=True)
    renewer.start()
    try:
        yield require
    finally:
        done.set()
        renewer.join()
        store.release_lease(LEASE, holder)
