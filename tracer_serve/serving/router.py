"""One request to one `Decision`: certified answers from the surrogate, all others from the teacher."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tracer_serve.components.teachers._ask_many import DOWN, BoundedCalls
from tracer_serve.errors import BadInputError, TeacherError
from tracer_serve.forms.known import NATIVE
from tracer_serve.infra.caller import KEY_ID
from tracer_serve.infra.cooperative import in_turns
from tracer_serve.infra.redaction import WITHHELD, Redact
from tracer_serve.policy.decision import CERTIFIED, Conditions, decide
from tracer_serve.protocols import Teacher
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.auditor import Auditor
from tracer_serve.serving.batcher import Batcher, Judged
from tracer_serve.serving.decision_cache import judge
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metrics import Metrics
from tracer_serve.serving.question import DirectQuestion, Question
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
        request = _Request(self, loaded, judged, metadata or {}, DirectQuestion(self.teacher, self.fingerprint))
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

    async def decide(
        self,
        text: Text,
        question: Question,
        metadata: dict[str, Any] | None = None,
        *,
        fits: Callable[[str], bool] = lambda _: True,
    ) -> "Decision | Deferral":
        """Answer one text of a call, or return the deferral: the caller asks the teacher, and says what came of it.

        Parameters
        ----------
        question : of which form the call is
        metadata : kept with the trace
        fits : whether a label can be given in the shape that the call asks for

        Raises
        ------
        BadInputError
            Where the text cannot be classified whoever is asked.
        """
        started = time.perf_counter()
        loaded = self.live.loaded
        stored = text if self.redact is None else self.redact(text)
        judged = await judge(loaded, [stored], self.batcher, self.metrics)
        request = _Request(self, loaded, judged, metadata or {}, question)
        (said,) = judged.verdicts
        verdict = None if stored is WITHHELD else said
        if isinstance(verdict, BadInputError):
            raise verdict
        certified = verdict is not None and request.reason(stored, verdict) == CERTIFIED
        if verdict is None or not certified or not fits(verdict.label):
            held = "unfillable_schema" if certified else None
            return Deferral(request, text, stored, verdict, request.rate, held)
        await self.writer.room()
        decision = request.handle(text, stored, verdict)
        self.metrics.seconds["total"].observe(time.perf_counter() - started)
        return decision

    async def preview(
        self, texts: Sequence[Text], metadata: dict[str, Any] | None = None
    ) -> list[tuple[Verdict | BadInputError | None, str, int | None]]:
        """Return verdict, reason and version of each text as `route` decides; no teacher is called, nothing stored."""
        loaded = self.live.loaded
        kept = texts if self.redact is None else [self.redact(text) async for text in in_turns(texts)]
        judged = await judge(loaded, kept, self.batcher, self.metrics)
        request = _Request(self, loaded, judged, metadata or {}, DirectQuestion(self.teacher, self.fingerprint))
        found: list[tuple[Verdict | BadInputError | None, str, int | None]] = []
        for stored, said in zip(kept, judged.verdicts, strict=True):
            verdict = None if stored is WITHHELD else said
            reason = "bad_input" if isinstance(verdict, BadInputError) else request.reason(stored, verdict)
            found.append((verdict, reason, request.version))
        return found

    def conditions(self, loaded: ActiveVersion, user: str | None, form: str = NATIVE) -> Conditions:
        """Return what decides on a request of a user beside the version, by the form that certifies it."""
        return Conditions(
            gate_closed=self.watch.closed(loaded) is not None,
            form_certified=form in loaded.forms,
            mode=self.rollout.mode,
            in_canary=self.rollout.in_canary(user),
        )


class _Request:
    """What the texts of one request have in common: their question, and the version that was live when it came."""

    __slots__ = ("calls", "conditions", "latency_ms", "metadata", "question", "router", "sampled", "version")

    def __init__(
        self,
        router: Router,
        loaded: ActiveVersion | None,
        judged: Judged,
        metadata: dict[str, Any],
        question: Question,
    ) -> None:
        self.router, self.metadata, self.question = router, metadata, question
        self.calls = BoundedCalls(router.at_once)
        self.version = None if loaded is None else loaded.number
        certified = loaded is not None and loaded.policy.certificate.certified
        user, form = metadata.get("user"), question.certified_as
        self.conditions = Conditions() if loaded is None else router.conditions(loaded, user, form)
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
        trace = self.trace(stored, verdict, "handled", rate, propensity=rate)
        repeats = router.watch.bursts.count(stored) and rate > 0
        kind: AuditKind | None = "random" if trace.u < rate else "burst" if repeats else None
        if kind is not None:
            trace = replace(trace, audit_kind=kind)
        router.writer.put(trace)
        if kind is not None:
            router.watch.purse.pay()
            router.audits.ask(trace, text, self.question)
        router.metrics.requests["handled"].inc()
        if router.audits.mean_cost:
            router.metrics.cost["avoided"].inc(router.audits.mean_cost)
        return Decision(verdict.label, "handled", verdict.reason, trace.id, self.version, verdict)

    async def defer(self, text: Text, stored: Text, verdict: Verdict | None, rate: float) -> Result:
        """Answer with the teacher's label; the row is on disk before the reply, where a disk can be written."""
        deferral = Deferral(self, text, stored, verdict, rate)
        try:
            answer = await self._ask(text)
        except TeacherError as error:
            return deferral.fail(error)
        return await deferral.learn(answer)

    async def _ask(self, text: Text) -> Answer:
        # a closed gate calibrates on what the teacher says now, not on what it remembers
        return await self.calls.run(lambda: self.question.ask(text, anew=self.conditions.gate_closed))

    def reason(self, stored: Text, verdict: Verdict | None) -> str:
        """Return why the surrogate answers a text or not."""
        if verdict is not None:
            in_burst = verdict.handled and self.router.watch.bursts.defers(stored)
            return decide(verdict.reason, self.conditions, in_burst=in_burst)
        return "no_version" if self.version is None else "policy_failed"

    def trace(
        self,
        text: Text,
        verdict: Verdict | None,
        decision: DecisionKind,
        rate: float,
        *,
        propensity: float = 1.0,
        trace_id: str | None = None,
    ) -> Trace:
        """Return the row of a text, without a label."""
        return Trace(
            id=trace_id or new_id(),
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
            metadata=self.metadata,
            form=self.question.form,
            key_id=KEY_ID.get(),
        )


class Deferral:
    """A text that the teacher answers, until it is known what came of that.

    Parameters
    ----------
    stored : the text as it is kept
    rate : the audit rate in force
    held : why the surrogate's certified answer does not count, where the request does not say it

    Attributes
    ----------
    trace_id : of the row that will be written
    """

    __slots__ = ("_held", "_rate", "_request", "_stored", "_text", "trace_id", "verdict")

    def __init__(  # noqa: PLR0917  # made here alone
        self,
        request: _Request,
        text: Text,
        stored: Text,
        verdict: Verdict | None,
        rate: float,
        held: str | None = None,
    ) -> None:
        self._request, self._text, self._stored, self._rate, self._held = request, text, stored, rate, held
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
        """Take the teacher's answer; the row is on disk on return, where a disk can be written."""
        request, verdict = self._request, self.verdict
        router, metrics = request.router, request.router.metrics
        metrics.requests["deferred"].inc()
        metrics.seconds["teacher"].observe(answer.latency_ms / 1e3)
        metrics.cost["spent"].inc(answer.cost)
        router.audits.note_cost(answer.cost)
        router.watch.note_label(answer.label)
        if verdict is not None and verdict.handled:
            metrics.shadow["true" if verdict.label == answer.label else "false"].inc()
        if self._stored is WITHHELD:
            metrics.lost.inc()
        else:
            trace = self._row("deferred")
            if request.sampled and request.conditions.withheld is None and trace.u < self._rate:
                router.watch.note_deferred(request.version, answer.label)
            latency = {**request.latency_ms, "teacher": round(answer.latency_ms, 3)}
            await router.writer.commit(
                replace(
                    trace,
                    teacher_label=answer.label,
                    label_source="teacher",
                    teacher_fingerprint=request.question.fingerprint,
                    usage=answer.usage,
                    cost=answer.cost,
                    latency_ms=latency,
                )
            )
        return Decision(answer.label, "deferred", self.reason, self.trace_id, request.version, verdict, answer)

    def fail(self, error: TeacherError, *, degrades: bool = True) -> Decision | TeacherError:
        """Take the reason why there is no label.

        Parameters
        ----------
        degrades : whether the surrogate may answer instead, where ``on_teacher_down: degraded`` allows it
        """
        router, verdict = self._request.router, self.verdict
        _log.warning("the teacher gave no usable label (%s): %s", error.reason, error)
        router.metrics.teacher_error(error.reason)
        degrades = degrades and router.degrade and verdict is not None and error.reason in DOWN
        if self._stored is not WITHHELD:
            trace = self._row("degraded" if degrades else "deferred")
            router.writer.put(replace(trace, metadata={**trace.metadata, "error": error.reason}))
        if not degrades or verdict is None:
            router.metrics.requests["error"].inc()
            return error
        router.metrics.requests["degraded"].inc()
        return Decision(verdict.label, "degraded", "teacher_down", self.trace_id, self.version, verdict)

    def _row(self, decision: DecisionKind) -> Trace:
        row = self._request.trace(self._stored, self.verdict, decision, self._rate, trace_id=self.trace_id)
        return replace(row, metadata={**row.metadata, "reason": self.reason})
