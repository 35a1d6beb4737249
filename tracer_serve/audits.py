"""The teacher's second opinion on handled texts, asked in the background: what keeps the certificate honest."""

import asyncio
import logging

from tracer_serve.errors import TeacherError
from tracer_serve.metrics import Metrics
from tracer_serve.protocols import Teacher
from tracer_serve.records import Answer, Text, Trace
from tracer_serve.writer import TraceWriter

_log = logging.getLogger(__name__)

_MEMORY = 0.98  # weight of the past in the running mean of an answer's cost


async def ask(teacher: Teacher, text: Text) -> Answer:
    """Ask the teacher; whatever a plugin's teacher raises becomes a `TeacherError` of that text alone."""
    try:
        return await teacher.label(text)
    except TeacherError:
        raise
    except Exception as error:
        _log.exception("the teacher raised what is no TeacherError")
        raise TeacherError("the teacher failed unexpectedly, see the server's log", reason="unavailable") from error


class Audits:
    """Asks the teacher about handled texts and puts its labels on their rows.

    Parameters
    ----------
    concurrency : most questions at a time, so that audits never crowd out deferred requests
    capacity : most questions waiting; beyond it an audit stays unanswered, whatever the text
    """

    def __init__(
        self, teacher: Teacher, writer: TraceWriter, metrics: Metrics, concurrency: int = 4, capacity: int = 1_000
    ) -> None:
        self.mean_cost = 0.0
        self._teacher, self._writer, self._metrics = teacher, writer, metrics
        self._slots = asyncio.Semaphore(concurrency)
        self._capacity = capacity
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def ask(self, trace: Trace) -> None:
        """Ask about a handled row that the writer has, without waiting."""
        if self._closed or len(self._running) >= self._capacity:
            self._metrics.audits["unanswered"].inc()
            return
        task = asyncio.get_running_loop().create_task(self._ask(trace))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def note_cost(self, cost: float) -> None:
        """Take a teacher answer's cost into the running mean, by which avoided cost is estimated."""
        self.mean_cost = cost if not self.mean_cost else _MEMORY * self.mean_cost + (1 - _MEMORY) * cost

    async def close(self, grace_s: float) -> None:
        """Let the questions under way end, for at most `grace_s` seconds."""
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

    async def _ask(self, trace: Trace) -> None:
        async with self._slots:
            try:
                answer = await ask(self._teacher, trace.input)
            except TeacherError as error:
                self._metrics.teacher_error(error.reason)
                self._metrics.audits["unanswered"].inc()
                return
        self.note_cost(answer.cost)
        self._metrics.cost["audit"].inc(answer.cost)
        self._metrics.audits["true" if answer.label == trace.surrogate_label else "false"].inc()
        self._writer.label(trace.id, "audit", answer, self._teacher.fingerprint)
