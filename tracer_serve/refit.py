"""One refit as a plain function: snapshot the traces, fit, gate, write the version and its report, maybe activate it.

It runs in the process that calls it: the CLI's, or a subprocess that the schedule starts, so that serving keeps its
tail latency. One refit at a time over all workers and replicas, by a lease in the trace store.
"""

import json
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from tracer_serve.components import load_plugins, make_embedder, make_teacher
from tracer_serve.errors import BusyError, FitError, TracerServeError
from tracer_serve.fit.compare import CandidateResult
from tracer_serve.fit.pipeline import Fitted, fit_policy
from tracer_serve.fit.rows import Progress, Rows, silent
from tracer_serve.load import Task
from tracer_serve.policy import CERTIFICATE
from tracer_serve.records import Certificate
from tracer_serve.report import build_report, render_html
from tracer_serve.traces import Refit, TraceStore, open_store
from tracer_serve.traces.importers import import_file
from tracer_serve.versions import Manifest, Versions

_LEASE = "refit"
_LEASE_S = 60.0
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
    """

    version: int
    activated: bool
    serving: int | None
    certificate: Certificate
    candidates: tuple[CandidateResult, ...]
    traces: int
    seconds: float


def store_of(task: Task) -> TraceStore:
    """Open the task's trace store: the shared one the spec names, or SQLite in the state folder."""
    return open_store(task.spec.traces.url or task.state / "traces.db", task.spec.name)


def versions_of(task: Task) -> Versions:
    """Return the task's versions."""
    return Versions(task.state / "versions")


def import_traces(task: Task, store: TraceStore) -> int:
    """Import the files under `traces.import` that are not in the store yet; return how many rows came in."""
    labels = task.spec.label_names
    return sum(
        import_file(store, task.resolve(path), labels=labels, pair=task.spec.input == "pair").imported
        for path in task.spec.traces.import_
    )


def refit(task: Task, trigger: str = "hand", progress: Progress = silent) -> Outcome:
    """Refit a task from the traces in its store.

    Parameters
    ----------
    trigger : why: ``hand``, ``start``, ``cron``, ``interval``, ``new_traces`` or ``alarm``; kept in the history

    Raises
    ------
    BusyError
        Where another refit of this task is under way.
    FitError
        Where there is too little to fit on.
    """
    plugins = load_plugins(task)
    store = store_of(task)
    try:
        with _lease(store), _recorded(store, trigger) as record:
            import_traces(task, store)
            outcome = _refit(task, store, plugins, progress)
            record(outcome)
            return outcome
    finally:
        store.close()


def _refit(task: Task, store: TraceStore, plugins: dict[str, str], progress: Progress) -> Outcome:
    began = time.monotonic()
    rows, last_trace = snapshot(store)
    versions = versions_of(task)
    embedder = make_embedder(task, task.state / "cache")
    fitted = fit_policy(task, rows, embedder, progress)
    parent = versions.current()
    number = versions.write(
        lambda folder: _fill(folder, task, rows, fitted, versions),
        lambda number, files: Manifest(
            version=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=task.spec.name,
            certified=fitted.certificate.certified,
            reason=fitted.certificate.reason,
            parent=parent,
            traces=len(rows),
            last_trace=last_trace,
            embedder=fitted.policy.embedder.fingerprint,
            teacher=make_teacher(task).fingerprint,
            plugins=plugins,
            software={"python": platform.python_version()} | {name: installed(name) for name in _SOFTWARE},
            files=files,
        ),
    )
    activated = fitted.certificate.certified or parent is None or not versions.manifest(parent).certified
    if activated:
        versions.activate(number)
    versions.collect(task.spec.versions.keep)
    return Outcome(
        version=number,
        activated=activated,
        serving=versions.current(),
        certificate=fitted.certificate,
        candidates=fitted.candidates,
        traces=len(rows),
        seconds=time.monotonic() - began,
    )


def snapshot(store: TraceStore) -> tuple[Rows, str]:
    """Return the labelled traces up to now and the id of the newest.

    Raises
    ------
    FitError
        Where there are none.
    """
    until = store.latest_id()
    traces = [] if until is None else [t for t in store.labelled(until_id=until) if t.teacher_label is not None]
    if until is None or not traces:
        raise FitError(
            "there are no labelled traces to fit on; bring some (`tracer-serve import TASK.yaml traces.jsonl`),"
            " or serve and let the teacher answer"
        )
    labels = np.asarray([t.teacher_label for t in traces], dtype=np.str_)
    return Rows([t.input for t in traces], labels, np.ones(len(traces), bool)), until


def _fill(folder: Path, task: Task, rows: Rows, fitted: Fitted, versions: Versions) -> None:
    """Write everything that belongs to a version."""
    fitted.policy.save(folder / "model")
    fitted.calibration.save(folder / "calibration.npz")
    (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(fitted.certificate, indent=1))
    candidates = [asdict(candidate) for candidate in fitted.candidates]
    (folder / "candidates.json").write_text(json.dumps(candidates, indent=1), encoding="utf-8")
    (folder / "spec.yaml").write_text(task.source, encoding="utf-8")
    history = [versions.folder(number) / "report.json" for number in versions.numbers()]
    earlier = [json.loads(file.read_text(encoding="utf-8")) for file in history if file.is_file()]
    report = build_report(task, fitted, [rows.texts[i] for i in fitted.calibration.row], earlier)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "report.html").write_text(render_html(report), encoding="utf-8")


@contextmanager
def _recorded(store: TraceStore, trigger: str) -> Iterator[Callable[[Outcome], None]]:
    """Keep the refit in the store's history from its start, with how it came out."""
    entry = Refit(reason=trigger)
    store.record_refit(entry)

    def record(outcome: Outcome) -> None:
        word = "certified" if outcome.certificate.certified else "abstained"
        store.record_refit(replace(entry, ended=datetime.now(UTC), outcome=word, version=outcome.version))

    try:
        yield record
    except TracerServeError:
        store.record_refit(replace(entry, ended=datetime.now(UTC), outcome="failed"))
        raise


@contextmanager
def _lease(store: TraceStore) -> Iterator[None]:
    """Hold the refit lease, renewed in the background until the block ends."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
    if not store.acquire_lease(_LEASE, holder, _LEASE_S):
        raise BusyError(
            f"another refit is under way ({store.lease_holder(_LEASE)}); it ends by itself,"
            f" or {_LEASE_S:.0f} s after its process died"
        )
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_LEASE_S / 4):
            store.renew_lease(_LEASE, holder, _LEASE_S)

    renewer = threading.Thread(target=renew, name="refit-lease", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        done.set()
        renewer.join()
        store.release_lease(_LEASE, holder)
