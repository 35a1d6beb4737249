"""One request to one `Decision`: certified answers from the surrogate, all others from the teacher."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tracer_serve.components.teachers._ask_many import DOWN, BoundedCalls
from tracer_serve.errors import BadInputError, TeacherError
from tracer_serve.infra.caller import KEY_ID
from tracer_serve.infra.cooperative import in_turns
from tracer_serve.infra.redaction import WITHHELD, Redact
from tracer_serve.policy.decision import CERTIFIED, Conditions, decide
from tracer_serve.protocols import Teacher
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.auditor import Auditor, ask
from tracer_serve.serving.batcher import Batcher, Judged
from tracer_serve.serving.decision_cache import judge
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metrics import Metrics
from tracer_serve.serving.rollout import ENFORCE, Rollout
from tracer_serve.serving.trace_writer import TraceWriter
from tracer_serve.storage.traces import new_id
from tracer_serve.types import Answer, AuditKind, Decision, DecisionKind, Text, Trace, Verdict

_log = logging.getLogger(__name__)

Result = Decision | TeacherError | BadInputError


@dataclass(frozen=True, slots=True)
class Router:
    """Routes texts.

    Whatever goes wrong before a certified answer exists defers to the teacher; the surrogate never guesses silently.

    Parameters
    ----------
    task : its name
    fingerprint : the teacher's, as rows keep it
    watch : says whether the gate is open, and how often to audit
    live : holds the version that serves
    batcher : runs it
    writer : takes the traces
    audits : asks the teacher about handled texts, after the reply
    redact : what of a text is stored, and seen by the surrogate; None: all of it
    rollout : for whom a certified answer counts
    degrade : whether the surrogate answers, uncertified and marked so, where the teacher is down
    at_once : most texts of one request that the teacher is asked about at a time, so that no list fills its queue
    """

    task: str
    teacher: Teacher
    fingerprint: str
    watch: GateWatcher
    live: VersionLoader
    batcher: Batcher
    writer: TraceWriter
    audits: Auditor
    metrics: Metrics
    redact: Redact | None = None
    rollout: Rollout = ENFORCE
    degrade: bool = False
    at_once: int = 16

    async def route(self, texts: Sequence[Text], metadata: dict[str, Any] | None = None) -> list[Result]:
        """Answer texts in their order; a text without an answer gets its error, the others their answers.

        Parameters
        ----------
        metadata : kept with each trace
        """
        started = time.perf_counter()
        loaded = self.live.loaded
        kept = texts if self.redact is None else [self.redact(text) async for text in in_turns(texts)]
        judged = await judge(loaded, kept, self.batcher, self.metrics)
        request = _Request(self, loaded, judged, metadata or {})
        results: list[Result | None] = []
        waiting: list[tuple[int, Text, Text, Verdict | None, float]] = []
        async for i, (text, stored, said) in in_turns(enumerate(zip(texts, kept, judged.verdicts, strict=True))):
            verdict = None if stored is WITHHELD else said
            if isinstance(verdict, BadInputError):
                results.append(verdict)
            elif verdict is not None and request.reason(stored, verdict) == CERTIFIED:
                await self.writer.room()
                results.append(request.handle(text, stored, verdict))
            else:
                results.append(None)
                waiting.append((i, text, stored, verdict, request.rate))
        if waiting:
            deferrals = (request.defer(text, stored, verdict, rate) for _, text, stored, verdict, rate in waiting)
            answers = await asyncio.gather(*deferrals)
            for (i, *_), answer in zip(waiting, answers, strict=True):
                results[i] = answer
        self.metrics.seconds["total"].observe(time.perf_counter() - started)
        return [result for result in results if result is not None]

    def conditions(self, loaded: ActiveVersion, user: str | None) -> Conditions:
        """Return what decides on a request of a user beside the version."""
        closed = self.watch.closed(loaded) is not None
        return Conditions(gate_closed=closed, mode=self.rollout.mode, in_canary=self.rollout.in_canary(user))


class _Request:
    """What the texts of one request have in common: the version that was live when it came."""

    __slots__ = ("calls", "conditions", "latency_ms", "metadata", "router", "sampled", "version")

    def __init__(self, router: Router, loaded: ActiveVersion | None, judged: Judged, metadata: dict[str, Any]) -> None:
        self.router, self.metadata = router, metadata
        self.calls = BoundedCalls(router.at_once)
        self.version = None if loaded is None else loaded.number
        certified = loaded is not None and loaded.policy.certificate.certified
        self.conditions = Conditions() if loaded is None else router.conditions(loaded, metadata.get("user"))
        # without a certificate that holds everything is labelled, which is what a rate of 1 says to the calibration. A
        # canary has one rate for all: a rate of 1 for those outside would let the certificate speak of them alone
        self.sampled = certified and self.conditions.withheld in (None, "canary")
        self.latency_ms = {"embed": round(judged.embed_s * 1e3, 3), "predict": round(judged.predict_s * 1e3, 3)}

    @property
    def rate(self) -> float:
        """The audit rate of the next text: one text may spend what was left of a budget."""
        return self.router.watch.rate if self.sampled else 1.0

    def handle(self, text: Text, stored: Text, verdict: Verdict) -> Decision:
        """Answer with the surrogate's certified label; the row is written soon, and audited by chance or in a burst."""
        router = self.router
        rate = self.rate
        trace = self._trace(stored, verdict, "handled", rate, propensity=rate)
        repeats = router.watch.bursts.count(stored) and rate > 0
        kind: AuditKind | None = "random" if trace.u < rate else "burst" if repeats else None
        if kind is not None:
            trace = replace(trace, audit_kind=kind)
        router.writer.put(trace)
        if kind is not None:
            router.watch.purse.pay()
            router.audits.ask(trace, text)
        router.metrics.requests["handled"].inc()
        if router.audits.mean_cost:
            router.metrics.cost["avoided"].inc(router.audits.mean_cost)
        return Decision(verdict.label, "handled", verdict.reason, trace.id, self.version, verdict)

    async def defer(self, text: Text, stored: Text, verdict: Verdict | None, rate: float) -> Result:
        """Answer with the teacher's label; the row is on disk before the reply, where a disk can be written."""
        router, metrics = self.router, self.router.metrics
        try:
            answer = await self._ask(text)
        except TeacherError as error:
            _log.warning("the teacher gave no usable label (%s): %s", error.reason, error)
            metrics.teacher_error(error.reason)
            if router.degrade and verdict is not None and error.reason in DOWN:
                return self._degrade(stored, verdict, rate, error)
            metrics.requests["error"].inc()
            if stored is not WITHHELD:
                router.writer.put(self._trace(stored, verdict, "deferred", rate, error=error))
            return error
        metrics.requests["deferred"].inc()
        metrics.seconds["teacher"].observe(answer.latency_ms / 1e3)
        metrics.cost["spent"].inc(answer.cost)
        router.audits.note_cost(answer.cost)
        router.watch.note_label(answer.label)
        if verdict is not None and verdict.handled:
            metrics.shadow["true" if verdict.label == answer.label else "false"].inc()
        trace = self._trace(stored, verdict, "deferred", rate, answer=answer)
        if stored is WITHHELD:
            metrics.lost.inc()
        else:
            await router.writer.commit(trace)
        return Decision(answer.label, "deferred", self.reason(stored, verdict), trace.id, self.version, verdict, answer)

    async def _ask(self, text: Text) -> Answer:
        # a closed gate calibrates on what the teacher says now, not on what it remembers
        return await self.calls.run(lambda: ask(self.router.teacher, text, anew=self.conditions.gate_closed))

    def _degrade(self, stored: Text, verdict: Verdict, rate: float, error: TeacherError) -> Decision:
        """Answer with the surrogate's label though it is not certified: the operator prefers that to none."""
        trace = self._trace(stored, verdict, "degraded", rate, error=error)
        self.router.writer.put(trace)
        self.router.metrics.requests["degraded"].inc()
        return Decision(verdict.label, "degraded", "teacher_down", trace.id, self.version, verdict)

    def _noted(self, stored: Text, verdict: Verdict | None, error: TeacherError | None) -> dict[str, Any]:
        """Return what is kept with a row that was not handled: why, and what the teacher's trouble was."""
        noted = {**self.metadata, "reason": self.reason(stored, verdict)}
        return noted if error is None else noted | {"error": error.reason}

    def reason(self, stored: Text, verdict: Verdict | None) -> str:
        """Return why the surrogate answers a text or not."""
        if verdict is not None:
            in_burst = verdict.handled and self.router.watch.bursts.defers(stored)
            return decide(verdict.reason, self.conditions, in_burst=in_burst)
        return "no_version" if self.version is None else "policy_failed"

    def _trace(
        self,
        text: Text,
        verdict: Verdict | None,
        decision: DecisionKind,
        rate: float,
        *,
        propensity: float = 1.0,
        answer: Answer | None = None,
        error: TeacherError | None = None,
    ) -> Trace:
        trace = Trace(
            id=new_id(),
            ts=datetime.now(UTC),
            task=self.router.task,
            input=text,
            surrogate_label=None if verdict is None else verdict.label,
            score=None if verdict is None else verdict.score,
            decision=decision,
            propensity=propensity,
            version=self.version,
            audit_rate=rate,
            u=random.random(),
            latency_ms=self.latency_ms,
            metadata=self.metadata if decision == "handled" else self._noted(text, verdict, error),
            key_id=KEY_ID.get(),
        )
        if answer is None:
            return trace
        return replace(
            trace,
            teacher_label=answer.label,
            label_source="teacher",
            teacher_fingerprint=self.router.fingerprint,
            usage=answer.usage,
            cost=answer.cost,
            latency_ms={**self.latency_ms, "teacher": round(answer.latency_ms, 3)},
        )
