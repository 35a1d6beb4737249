"""One request to one `Decision`: certified answers from the surrogate, all others from the teacher."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracer_serve.components.teachers._ask_many import BoundedCalls
from tracer_serve.errors import BadInputError, TeacherError
from tracer_serve.forms.known import NATIVE
from tracer_serve.infra.cooperative import in_turns
from tracer_serve.infra.redaction import WITHHELD, Redact
from tracer_serve.policy.decision import CERTIFIED, Conditions
from tracer_serve.protocols import Teacher
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.auditor import Auditor
from tracer_serve.serving.batcher import Batcher, BatchTimes, MaybeVerdict
from tracer_serve.serving.decision_cache import judge
from tracer_serve.serving.deferral import Deferral
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metrics import Metrics
from tracer_serve.serving.question import DirectQuestion, Question
from tracer_serve.serving.request_context import RequestContext
from tracer_serve.serving.rollout import ENFORCE, Rollout
from tracer_serve.serving.trace_writer import TraceWriter
from tracer_serve.types import Decision, Text

Result = Decision | TeacherError | BadInputError


@dataclass(frozen=True, slots=True)
class Router:
    """Route texts: a certified answer, or the teacher's.

    Any failure before a certified answer exists defers to the teacher; the surrogate never guesses silently.

    Parameters
    ----------
    task : its name
    fingerprint : the teacher's, as rows keep it
    watch : knows whether the gate is open, and the audit rate
    live : holds the version that serves
    batcher : runs it
    writer : stores the traces
    audits : asks the teacher about handled texts, after the reply
    redact : what of a text is stored, and seen by the surrogate; None: all of it
    rollout : for whom a certified answer counts
    degrade_on : reasons of teacher errors for which the surrogate answers, uncertified and marked so
    at_once : most concurrent teacher calls of one request, so that no list fills the teacher's queue
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
    degrade_on: frozenset[str] = frozenset()
    at_once: int = 16

    async def route(
        self,
        texts: Sequence[Text],
        metadata: dict[str, Any] | None = None,
        *,
        fits: Callable[[str], bool] = lambda _: True,
    ) -> list[Result]:
        """Answer texts in their order; a text without an answer gets its error, the others their answers.

        Parameters
        ----------
        metadata : stored with each trace
        fits : as in `decide`
        """
        started = time.perf_counter()
        request, rows = await self._judge(texts, metadata)
        results: list[Result | None] = []
        waiting: list[tuple[int, Deferral]] = []
        async for i, (text, (stored, verdict)) in in_turns(enumerate(zip(texts, rows, strict=True))):
            if isinstance(verdict, BadInputError):
                results.append(verdict)
                continue
            certified = verdict is not None and request.reason(stored, verdict) == CERTIFIED
            if verdict is not None and certified and fits(verdict.label):
                await self.writer.room()
                results.append(request.handle(text, stored, verdict))
            else:
                held = "unfillable_schema" if certified else None
                results.append(None)
                waiting.append((i, Deferral(request, stored, verdict, rate=request.rate, held=held)))
        if waiting:
            calls = BoundedCalls(self.at_once)
            answers = await asyncio.gather(*(_ask(texts[i], deferral, request, calls) for i, deferral in waiting))
            for (i, _), answer in zip(waiting, answers, strict=True):
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
    ) -> Decision | Deferral:
        """Answer one text of a call, or return the deferral: the caller asks the teacher and records the outcome.

        Parameters
        ----------
        question : the form of the call
        metadata : stored with the trace
        fits : whether a label can be given in the shape that the call asks for

        Raises
        ------
        BadInputError
            If no classifier can take the text.
        """
        started = time.perf_counter()
        request, ((stored, verdict),) = await self._judge([text], metadata, question)
        if isinstance(verdict, BadInputError):
            raise verdict
        certified = verdict is not None and request.reason(stored, verdict) == CERTIFIED
        if verdict is None or not certified or not fits(verdict.label):
            held = "unfillable_schema" if certified else None
            return Deferral(request, stored, verdict, rate=request.rate, held=held)
        await self.writer.room()
        decision = request.handle(text, stored, verdict)
        self.metrics.seconds["total"].observe(time.perf_counter() - started)
        return decision

    async def preview(
        self, texts: Sequence[Text], metadata: dict[str, Any] | None = None
    ) -> list[tuple[MaybeVerdict, str, int | None]]:
        """Return verdict, reason and version of each text as `route` decides; no teacher is called, nothing stored."""
        request, rows = await self._judge(texts, metadata)
        found: list[tuple[MaybeVerdict, str, int | None]] = []
        for stored, verdict in rows:
            reason = "bad_input" if isinstance(verdict, BadInputError) else request.reason(stored, verdict)
            found.append((verdict, reason, request.version))
        return found

    def conditions(
        self, loaded: ActiveVersion, user: str | None, form: str = NATIVE, certified_as: str = NATIVE
    ) -> Conditions:
        """Return what decides on a request of a user beside the version, by its form and the one that certifies it."""
        return Conditions(
            gate_closed=self.watch.closed(loaded) is not None,
            form_certified=certified_as in loaded.forms,
            form_agrees=form == certified_as or form not in self.watch.forms.suspended,
            mode=self.rollout.mode,
            in_canary=self.rollout.in_canary(user),
        )

    async def _judge(
        self, texts: Sequence[Text], metadata: dict[str, Any] | None, question: Question | None = None
    ) -> tuple[RequestContext, list[tuple[Text, MaybeVerdict]]]:
        """Ask the live version; return the request's context, and each text as it is stored with its verdict."""
        loaded = self.live.loaded
        kept = texts if self.redact is None else [self.redact(text) async for text in in_turns(texts)]
        verdicts, times = await judge(loaded, kept, self.batcher, self.metrics)
        context = self._context(
            loaded, times, metadata or {}, question or DirectQuestion(self.teacher, self.fingerprint)
        )
        rows = zip(kept, verdicts, strict=True)
        return context, [(stored, None if stored is WITHHELD else verdict) for stored, verdict in rows]

    def _context(
        self, loaded: ActiveVersion | None, times: BatchTimes, metadata: dict[str, Any], question: Question
    ) -> RequestContext:
        conditions, certified = Conditions(), False
        if loaded is not None:
            conditions = self.conditions(loaded, metadata.get("user"), question.form, question.certified_as)
            certified = loaded.policy.certificate.certified
        return RequestContext(
            task=self.task,
            question=question,
            version=None if loaded is None else loaded.number,
            conditions=conditions,
            # without a certificate that holds everything is labelled, which is what a rate of 1 says to the
            # calibration. A canary has one rate for all: a rate of 1 for those outside would let the certificate speak
            # of them alone
            sampled=certified and conditions.withheld in (None, "canary"),
            degrade_on=self.degrade_on,
            metadata=metadata,
            latency_ms=times.per_text_ms(),
            watch=self.watch,
            writer=self.writer,
            audits=self.audits,
            metrics=self.metrics,
        )


async def _ask(text: Text, deferral: Deferral, request: RequestContext, calls: BoundedCalls) -> Result:
    """Answer with the teacher's label; the row is on disk before the reply, where a disk can be written."""
    fresh = request.conditions.gate_closed  # a closed gate calibrates on what the teacher says now
    try:
        answer = await calls.run(lambda: request.question.ask(text, fresh=fresh))
    except TeacherError as error:
        return deferral.fail(error)
    return await deferral.learn(answer)
