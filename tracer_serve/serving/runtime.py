"""The objects of one task in a worker process, from start to stop."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from tracer_serve.components.factory import load_plugins, make_embedders, make_redactors, make_teacher
from tracer_serve.components.known_forms import KnownForms, make_forms
from tracer_serve.components.teachers._ask_many import DOWN, concurrency_of
from tracer_serve.components.teachers._batch.opening import make_batch_teacher
from tracer_serve.components.teachers._spend_limit import SpendLimit, share_spend, spend_limit_of, spent_ratio
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.errors import BUDGET_REACHED, ArtifactError, BadInputError, StoreError
from tracer_serve.forms.known import NATIVE
from tracer_serve.infra.log_context import TASK
from tracer_serve.infra.periodic import PeriodicTask
from tracer_serve.infra.redaction import redaction
from tracer_serve.infra.resilience.ttl_cache import Cache
from tracer_serve.lifecycle.adopted_forms import adopted_forms
from tracer_serve.lifecycle.gate_state.state import GateState
from tracer_serve.lifecycle.scheduler import RefitScheduler
from tracer_serve.lifecycle.teacher_change import known_labels, note_teacher
from tracer_serve.lifecycle.triggers import replace_unreadable
from tracer_serve.policy.policy import Policy
from tracer_serve.protocols import Embedder, Teacher
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.auditor import AUDITS_AT_ONCE, Auditor
from tracer_serve.serving.batch_auditor import BatchAuditor
from tracer_serve.serving.batcher import Batcher
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metrics import Metrics
from tracer_serve.serving.rollout import Rollout
from tracer_serve.serving.router import Router
from tracer_serve.serving.trace_writer import TraceWriter
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions import open_versions
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.storage.versions.store import VersionStore
from tracer_serve.types import Text

_log = logging.getLogger(__name__)

_FORMS_S = 5.0  # between reads of the adopted forms
GRACE_S = 10
"""Seconds for requests in flight, audits and the last rows when the service stops."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One task that this process serves."""

    task: Task
    store: TraceStore
    versions: VersionStore
    live: VersionLoader
    watch: GateWatcher
    writer: TraceWriter
    metrics: Metrics
    router: Router
    forms: KnownForms

    @property
    def max_body(self) -> int:
        """Largest request body, bytes."""
        return int(self.task.spec.server.max_body_mb * 1_000_000)

    def classes(self, version: int | None = None) -> tuple[str, ...]:
        """Return the labels of a version in the order of its probabilities; without a version the spec's."""
        loaded = self.live.loaded
        if loaded is not None and version in (None, loaded.number):
            return loaded.labels
        return self.task.spec.label_names

    def problems(self) -> list[str]:
        """Return problems that do not prevent answers, one line each."""
        found = []
        if self.writer.problem is not None:
            kept = f"{self.writer.waiting:,} wait in memory, {self.writer.lost:,} are lost so far"
            found.append(f"traces cannot be stored ({kept}), so refits miss them: {self.writer.problem}")
        elif self.writer.lost:
            found.append(f"{self.writer.lost:,} traces were lost since the start: {self.writer.last_loss}")
        if self.live.problem is not None:
            found.append(self.live.problem)
        if self.gate.void:
            found.append(f"the gate is closed, everything goes to the teacher: {self.gate.message}")
        if self.watch.problem is not None:
            found.append(f"the monitor only sees this worker's audits: {self.watch.problem}")
        return found

    @property
    def gate(self) -> GateState:
        """The state of the gate for the version that is loaded."""
        return self.watch.state(self.live.loaded)


@asynccontextmanager
async def running(
    task: Task,
    *,
    schedule: bool = True,
    teacher: Teacher | None = None,
    audits_at_once: int = AUDITS_AT_ONCE,
) -> AsyncIterator[Runtime]:
    """Start a task; at the end, wait up to `GRACE_S` seconds for work in progress.

    Parameters
    ----------
    teacher : used instead of the spec's teacher; has the same fingerprint
    audits_at_once : most audits at a time

    Raises
    ------
    TracerServeError
        If the store cannot be opened or a component cannot be built.
    """
    async with AsyncExitStack() as stack:
        TASK.set(task.spec.name)  # inherited by tasks and threads that are started from here on
        runtime = await _started(task, stack, teacher, audits_at_once)
        if schedule:
            scheduler = RefitScheduler(task, runtime.store, runtime.versions, runtime.metrics.refit)
            scheduler.start()
            stack.push_async_callback(asyncio.to_thread, scheduler.stop)
        if schedule and teacher is None and task.spec.traces.audit_via == "batch":
            await _audit_by_batch(runtime, stack)
        if runtime.gate.void:
            _log.warning("the gate is closed, everything goes to the teacher: %s", runtime.gate.message)
        yield runtime
        TASK.set(task.spec.name)  # other tasks may have been started since, in the same context
        _log.info("stopping: waiting for audits and rows in progress")


async def _started(task: Task, stack: AsyncExitStack, teacher: Teacher | None, audits_at_once: int) -> Runtime:
    """Open the store, load the current version, and start the threads; the stack stops them."""
    load_plugins(task)
    store = store_of(task)
    stack.callback(store.close)
    versions = open_versions(task, store)
    metrics = Metrics(task.spec.name, lambda: live.loaded, lambda: watch, lambda: spent_ratio(teacher))
    metrics.start()
    stack.push_async_callback(asyncio.to_thread, metrics.stop)
    # the prompt of an open task's teacher lists its earlier labels; it may give new ones
    own = make_teacher(task, await asyncio.to_thread(known_labels, task, store))
    forms = make_forms(task, own)
    if teacher is None:
        teacher = own
    else:
        stack.push_async_callback(own.close)
    share_spend(teacher, store.values)
    await _follow_forms(forms, store, stack)

    def failed(number: int | None, error: Exception) -> None:
        metrics.load_failures.inc()
        if live.loaded is None and number is not None and isinstance(error, ArtifactError):
            with suppress(StoreError):  # the version's problem is reported either way
                replace_unreadable(store, number)

    live = VersionLoader(
        versions.current,
        lambda number: _load(task, versions, forms, number),
        failed,
        poll_s=versions.poll_s,
        retry_s=versions.retry_s,
    )
    await asyncio.to_thread(live.start)
    stack.callback(live.stop)
    await asyncio.to_thread(note_teacher, store, teacher.fingerprint, task)
    watch = GateWatcher(store, live, teacher.fingerprint, task.spec, metrics.new_labels.inc)
    await asyncio.to_thread(watch.start)
    stack.push_async_callback(asyncio.to_thread, watch.stop)
    writer = TraceWriter(store, metrics.lost.inc, metrics.delayed.inc)
    by_batch = task.spec.traces.audit_via == "batch" and teacher is own
    audits = Auditor(writer=writer, metrics=metrics, watch=watch, concurrency=audits_at_once, by_batch=by_batch)
    router = _router(task, stack, teacher, live, watch, writer=writer, metrics=metrics, audits=audits)
    return Runtime(task, store, versions, live, watch, writer, metrics, router, forms)


async def _audit_by_batch(runtime: Runtime, stack: AsyncExitStack) -> None:
    """Start the audits by batch.

    Raises
    ------
    SpecError
        If the teacher has no batch API.
    """
    await make_batch_teacher(runtime.task, (), runtime.store.values, "audits").close()
    work = asyncio.create_task(BatchAuditor(runtime.task, runtime.store, runtime.router.audits).run())

    async def stop() -> None:
        work.cancel()
        await asyncio.wait([work])

    stack.push_async_callback(stop)


async def _follow_forms(forms: KnownForms, store: TraceStore, stack: AsyncExitStack) -> None:
    """Load forms that are adopted while this process runs."""

    def read() -> None:
        with suppress(StoreError):  # known forms stay; the gate watcher reports the problem
            forms.adopt(adopted_forms(store))

    follower = PeriodicTask("tracer-forms", read, _FORMS_S)
    await asyncio.to_thread(follower.start)
    stack.push_async_callback(asyncio.to_thread, follower.stop)


def _router(
    task: Task,
    stack: AsyncExitStack,
    teacher: Teacher,
    live: VersionLoader,
    watch: GateWatcher,
    *,
    writer: TraceWriter,
    metrics: Metrics,
    audits: Auditor,
) -> Router:
    """Build the router; at the end its audits stop first, then the writer, then the teacher."""
    spec = task.spec
    stack.push_async_callback(teacher.close)
    stack.push_async_callback(asyncio.to_thread, writer.close, GRACE_S / 2)
    batcher = Batcher()
    stack.push_async_callback(asyncio.to_thread, batcher.close)
    stack.push_async_callback(audits.close, GRACE_S / 2)
    return Router(
        spec.name,
        teacher,
        teacher.fingerprint,
        watch,
        live,
        batcher,
        writer,
        audits,
        metrics,
        redact=redaction(make_redactors(task)),
        rollout=Rollout(spec.mode, spec.canary, spec.name),
        degrade_on=_degrade_on(spec, spend_limit_of(teacher)),
        at_once=concurrency_of(spec.teacher.params),
    )


def _degrade_on(spec: Spec, limit: SpendLimit | None) -> frozenset[str]:
    """Return the reasons of teacher errors for which the surrogate answers."""
    found = DOWN - {BUDGET_REACHED} if spec.on_teacher_down == "degraded" else frozenset[str]()
    return found | {BUDGET_REACHED} if limit is not None and limit.budget.when_reached == "degraded" else found


def _load(task: Task, versions: VersionStore, forms: KnownForms, number: int) -> ActiveVersion:
    """Load and verify a version."""
    manifest = versions.verify(number)
    policy = Policy.load(versions.folder(number) / "model", *make_embedders(task))
    warm(task, [view.embedder for view in policy.views])
    return ActiveVersion(
        number,
        policy,
        manifest.teacher,
        tuple(map(str, policy.classes)),
        manifest.after,
        forms=frozenset(map(forms.certified_as, manifest.forms)) or frozenset({NATIVE}),
        decided=Cache(task.spec.server.decision_cache, math.inf),
    )


def warm(task: Task, embedders: Sequence[Embedder]) -> None:
    """Let local encoders load their weights now, so that the first text does not wait for it."""
    probe: Text = ("a text", "another") if task.spec.input == "pair" else "a text"
    for embedder in embedders:
        if not embedder.trainable and not getattr(embedder, "remote", False):
            with suppress(BadInputError):  # precomputed vectors are not text, and load nothing
                embedder.embed([probe])
