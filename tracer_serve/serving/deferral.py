"""A deferred text: record the teacher's answer, or why there is none."""

import logging
from dataclasses import replace

from tracer_serve.errors import BUDGET_REACHED, TeacherError
from tracer_serve.infra.redaction import WITHHELD
from tracer_serve.serving.held_back import BY_MODE
from tracer_serve.serving.request_context import RequestContext
from tracer_serve.storage.traces import new_id
from tracer_serve.types import Answer, Decision, DecisionKind, Text, Trace, Verdict

_log = logging.getLogger(__name__)


class Deferral:
    """A text that the teacher answers, until its answer or failure is known.

    Parameters
    ----------
    stored : the text as it is stored
    verdict : the policy's; None if it has none
    rate : the audit rate in force
    held : why a certified answer does not count, where `RequestContext.reason` does not know it

    Attributes
    ----------
    trace_id : of the row that will be written
    """

    __slots__ = ("_held", "_rate", "_request", "_stored", "trace_id", "verdict")

    def __init__(
        self, request: RequestContext, stored: Text, verdict: Verdict | None, *, rate: float, held: str | None = None
    ) -> None:
        self._request, self._stored, self._rate, self._held = request, stored, rate, held
        self.verdict, self.trace_id = verdict, new_id()

    @property
    def reason(self) -> str:
        """Why the surrogate does not answer."""
        return self._held or self._request.reason(self._stored, self.verdict)

    @property
    def version(self) -> int | None:
        """The version that decided."""
        return self._request.version

    async def learn(self, answer: Answer) -> Decision:
        """Record the teacher's answer; on return, the row is on disk if the disk is writable."""
        request, verdict, metrics = self._request, self.verdict, self._request.metrics
        metrics.requests["deferred"].inc()
        metrics.deferred[self.reason].inc()
        metrics.seconds["teacher"].observe(answer.latency_ms / 1e3)
        metrics.cost["spent"].inc(answer.cost)
        request.audits.note_cost(answer.cost)
        request.watch.note_label(answer.label)
        if verdict is not None and verdict.handled:
            agree = verdict.label == answer.label
            metrics.shadow["true" if agree else "false"].inc()
            if self.reason in BY_MODE:
                request.watch.held_back.note(agree, answer.cost)
        if self._stored is WITHHELD:
            metrics.lost.inc()
        else:
            trace = self._row("deferred")
            if request.sampled and request.conditions.withheld is None and trace.u < self._rate:
                request.watch.note_deferred(request.version, answer.label)
            trace = replace(
                trace,
                teacher_label=answer.label,
                label_source="teacher",
                teacher_fingerprint=request.question.fingerprint,
                usage=answer.usage,
                cost=answer.cost,
                latency_ms={**request.latency_ms, "teacher": round(answer.latency_ms, 3)},
            )
            await request.writer.commit(trace)
        return Decision(answer.label, "deferred", self.reason, self.trace_id, self.version, verdict, answer)

    def fail(self, error: TeacherError, *, degrades: bool = True) -> Decision | TeacherError:
        """Take the reason why there is no label.

        Parameters
        ----------
        degrades : whether the surrogate may answer instead, where the YAML allows it for this reason
        """
        request, verdict = self._request, self.verdict
        _log.warning("the teacher gave no usable label (%s): %s", error.reason, error)
        request.metrics.teacher_error(error.reason)
        request.metrics.deferred[self.reason].inc()
        degrades = degrades and verdict is not None and error.reason in request.degrade_on
        if self._stored is not WITHHELD:
            trace = self._row("degraded" if degrades else "deferred")
            request.writer.put(replace(trace, metadata={**trace.metadata, "error": error.reason}))
        if not degrades or verdict is None:
            request.metrics.requests["error"].inc()
            return error
        request.metrics.requests["degraded"].inc()
        reason = BUDGET_REACHED if error.reason == BUDGET_REACHED else "teacher_down"
        return Decision(verdict.label, "degraded", reason, self.trace_id, self.version, verdict)

    def _row(self, decision: DecisionKind) -> Trace:
        row = self._request.trace(self._stored, self.verdict, decision, self._rate, trace_id=self.trace_id)
        return replace(row, metadata={**row.metadata, "reason": self.reason})
