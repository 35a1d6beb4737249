"""Audits: ask the teacher about handled texts in the background, to check the certificate."""

import asyncio
import logging

from tracer_serve.errors import TeacherError
from tracer_serve.forms.known import NATIVE
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metrics import Metrics
from tracer_serve.serving.question import Question
from tracer_serve.serving.trace_writer import TraceWriter
from tracer_serve.types import Answer, Text, Trace

_log = logging.getLogger(__name__)

AUDITS_AT_ONCE = 4
"""Audits of a server at a time."""

_MEMORY = 0.98  # weight of the past in the running mean of an answer's cost


class Auditor:
    """Ask the teacher about handled texts, and store its labels on their rows.

    Parameters
    ----------
    watch : records the results of audits
    concurrency : most audits at a time, so that they do not displace deferred requests
    capacity : most audits waiting; beyond it an audit stays unanswered, independently of its text
    by_batch : leave random audits of direct calls to `BatchAuditor`, which finds them in the store
    """

    def __init__(
        self,
        *,
        writer: TraceWriter,
        metrics: Metrics,
        watch: GateWatcher,
        concurrency: int = AUDITS_AT_ONCE,
        capacity: int = 1_000,
        by_batch: bool = False,
    ) -> None:
        self.mean_cost = 0.0
        self._writer, self._metrics, self._watch = writer, metrics, watch
        self._slots = asyncio.Semaphore(concurrency)
        self._capacity, self._by_batch = max(capacity, concurrency), by_batch
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def ask(self, trace: Trace, text: Text, question: Question) -> None:
        """Start an audit of a handled row that was queued for writing; does not wait for the answer."""
        if self._by_batch and trace.audit_kind == "random" and question.form == NATIVE:
            return
        if self._closed or len(self._running) >= self._capacity:
            self._metrics.audits["unanswered"].inc()
            return
        task = asyncio.get_running_loop().create_task(self._ask(trace, text, question))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def note_cost(self, cost: float) -> None:
        """Add the cost of a teacher's answer to the running mean, from which avoided cost is estimated."""
        self.mean_cost = cost if not self.mean_cost else _MEMORY * self.mean_cost + (1 - _MEMORY) * cost

    async def answered(self) -> None:
        """Wait until no audit is in progress."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self, grace_s: float) -> None:
        """Wait for audits in progress, for at most `grace_s` seconds, then cancel them."""
        self._closed = True
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            self._metrics.audits["unanswered"].inc(len(late))
            _log.warning("%d audits had no answer when the service stopped", len(late))
            await asyncio.wait(late)

    async def _ask(self, trace: Trace, text: Text, question: Question) -> None:
        async with self._slots:
            try:
                answer = await question.ask(text, fresh=True)  # a cached label would hide a change
            except TeacherError as error:
                self.unanswered(error)
                return
        self.record(trace, answer, question.fingerprint)

    def unanswered(self, error: TeacherError) -> None:
        """Count an audit that has no answer."""
        self._metrics.teacher_error(error.reason)
        self._metrics.audits["unanswered"].inc()

    def record(self, trace: Trace, answer: Answer, fingerprint: str) -> None:
        """Store the teacher's answer about a handled row, and tell the monitor."""
        self.note_cost(answer.cost)
        self._metrics.cost["audit"].inc(answer.cost)
        agree = answer.label == trace.surrogate_label
        if trace.audit_kind == "burst":  # not a random sample, so the monitor ignores it
            self._metrics.burst_audits["true" if agree else "false"].inc()
            if not agree:
                self._watch.bursts.disagree(trace.version, trace.input)
        else:
            self._metrics.audits["true" if agree else "false"].inc()
            self._watch.note_audit(trace.version, agree, answer.label, trace.form)
        self._watch.note_label(answer.label)
        self._writer.label(trace.id, "audit", answer, fingerprint)
