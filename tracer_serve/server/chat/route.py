"""Handle calls of every LLM API: recognise a call, then answer it, learn from upstream's answer, or forward it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tracer_serve.components.teachers._ask_many import concurrency_of
from tracer_serve.components.teachers._labels import FieldLabels, LabelSet, labels_of
from tracer_serve.components.teachers._spend_limit import PaidCall, SpendLimit, paid_call, spend_limit_of
from tracer_serve.config.fields import AnswerFields
from tracer_serve.config.task import Spec
from tracer_serve.errors import BudgetError, TeacherError, TracerServeError
from tracer_serve.forms.known import AMBIGUOUS, NATIVE, NOT_A_CALL
from tracer_serve.infra.redaction import redact_text
from tracer_serve.server.chat.completions_face import COMPLETIONS
from tracer_serve.server.chat.face import Face, Reply
from tracer_serve.server.chat.forward import Forwarder, passed_on, takes
from tracer_serve.server.chat.messages_face import MESSAGES_API
from tracer_serve.server.chat.recognise import ForeignCall, Recogniser, TaskCall
from tracer_serve.server.chat.relay import Relay
from tracer_serve.server.chat.responses_face import RESPONSES_API
from tracer_serve.server.chat.upstream_question import UpstreamQuestion
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError, respond
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import read_json
from tracer_serve.server.routes.classify import finite, headers_of, metadata_of, says_something, usage_of
from tracer_serve.serving.deferral import Deferral
from tracer_serve.serving.forwarded_calls import ForwardedCalls, LabelOf
from tracer_serve.serving.runtime import Runtime
from tracer_serve.types import Decision

FOREIGN = "tracer_serve.foreign"
"""True in the scope of a call that was found to be of no task: it may look like one of this task all the same."""

FACES = (COMPLETIONS, RESPONSES_API, MESSAGES_API)
"""The APIs whose calls are recognised."""

_USER = 256  # characters of a user's name that are kept, as in /v1/classify


@dataclass(frozen=True, slots=True)
class Chat:
    """State of the route in addition to the runtime.

    Parameters
    ----------
    forwarder : for calls that are not the task's; None if they are not forwarded
    deferrals : the same one, for the task's own calls; None if the teacher has no endpoint
    forwarded : the sample of the calls that were not recognised
    """

    recogniser: Recogniser
    forwarder: Forwarder | None
    deferrals: Forwarder | None
    forwarded: ForwardedCalls


@asynccontextmanager
async def chatting(runtime: Runtime) -> AsyncIterator[Chat]:
    """Context manager of the route's connections."""
    spec, teacher = runtime.task.spec, runtime.router.teacher

    def labels() -> tuple[str, ...]:
        return spec.label_names or runtime.classes()

    fields = spec.answer_fields
    recogniser = Recogniser(spec.name, runtime.forms, labels, pair=spec.input == "pair", fields=fields)
    endpoints = getattr(teacher, "endpoints", ())
    upstream = Forwarder(endpoints, concurrency_of(spec.teacher.params)) if endpoints else None
    redact = redact_text(runtime.router.redact)
    forwarded = ForwardedCalls(runtime.store, spec.server.sample_forwarded, redact, _label_of(labels, fields))
    await asyncio.to_thread(forwarded.start)
    try:
        yield Chat(recogniser, upstream if spec.server.forward else None, upstream, forwarded)
    finally:
        await asyncio.to_thread(forwarded.stop)
        if upstream is not None:
            await upstream.close()


def _label_of(labels: Callable[[], Sequence[str]], fields: AnswerFields | None) -> LabelOf:
    """Return a function that finds one of the labels in the body of an answer."""
    faces = {face.api: face for face in FACES}

    def find(api: str, body: bytes, stream: bool) -> str | None:
        try:
            said = faces[api].read(body, stream=stream).message.get("content")
            if not isinstance(said, str):
                return None
            if fields is not None:
                return FieldLabels(fields).parse(said)
            return LabelSet(labels()).parse(said) if labels() else None
        except TeacherError:
            return None

    return find


@dataclass(frozen=True, slots=True)
class _Asked:
    """Request of a client, with the face that it came through."""

    runtime: Runtime
    chat: Chat
    request: Request
    face: Face
    body: bytes


async def answer_call(request: Request, *, face: Face) -> Response:
    """Answer one request that came through a face."""
    runtime, chat = runtime_of(request), request.app.state.chat
    asked = _Asked(runtime, chat, request, face, await read_json(request, runtime.max_body))
    read = chat.recogniser.read(asked.body, face.api)
    if isinstance(read, TaskCall) and request.scope.get(FOREIGN):
        read = ForeignCall(AMBIGUOUS, read.known.name, "several tasks have this form", read.call)
    if isinstance(read, TaskCall):
        if not says_something(read.text):
            raise RefusalError(400, "the text to classify is empty", param=face.texts)
        if read.known.fingerprint == NATIVE:
            return await _direct(asked, read)
        if takes(chat.deferrals, face.path, face.protocol):
            return await _drop_in(asked, chat.deferrals, read)
        read = ForeignCall("unknown_api", read.known.name, "the teacher has no endpoint that takes it", read.call)
    if read.reason == NOT_A_CALL:
        _require_json(asked.body)
    return _forward(asked, read)


async def _direct(asked: _Asked, read: TaskCall) -> Response:
    """Answer a call that names the task: as ``/v1/classify`` does, in the shape that its API has."""

    def fits(label: str) -> bool:
        return read.shape.problem(label) is None

    (result,) = await asked.runtime.router.route([read.text], _metadata(asked.request, read), fits=fits)
    if isinstance(result, TracerServeError):
        raise result
    if problem := read.shape.problem(result.label, _others(result)):
        raise TeacherError(f"the teacher's label cannot be given: {problem}", reason="unknown_label")
    return _answer(asked.face, read, result)


async def _drop_in(asked: _Asked, deferrals: Forwarder, read: TaskCall) -> Response:
    """Answer a call of another known form, or send it upstream as it came and learn its label."""
    router, known = asked.runtime.router, read.known
    question = UpstreamQuestion(
        form=known.fingerprint,
        certified_as=known.certified_as,
        fingerprint=router.fingerprint if known.certified_as == NATIVE else known.certified_as,
        forwarder=deferrals,
        face=asked.face,
        body=asked.body,
        headers=passed_on(asked.request, again=True),
        shape=read.shape,
        labels=labels_of(asked.runtime.task.spec),
        price=getattr(router.teacher, "price", None),
        spend=spend_limit_of(router.teacher),
    )

    def fits(label: str) -> bool:
        return read.shape.problem(label) is None

    found = await router.decide(read.text, question, _metadata(asked.request, read), fits=fits)
    if isinstance(found, Decision):
        return _answer(asked.face, read, found)
    learner = _Learner(found, question, read)
    headers = _headers_of(found)
    relay = Relay(deferrals, asked.face.path, asked.body, asked.request, headers=headers, learner=learner)
    return relay if question.spend is None else _WithinBudget(relay, learner, question.spend)


@dataclass(frozen=True, slots=True)
class _Learner:
    """Learn the label from upstream's answer to a deferred call."""

    deferral: Deferral
    question: UpstreamQuestion
    read: TaskCall
    started: float = field(default_factory=time.monotonic)
    paid: PaidCall = field(default_factory=PaidCall)

    async def answered(self, body: bytes, *, stream: bool) -> None:
        try:
            answer = self.question.read(body, stream=stream, started=self.started)
        except TeacherError as error:
            self.deferral.fail(error, degrades=False)
        else:
            self.paid.cost = answer.cost if answer.usage else None
            await self.deferral.learn(answer)

    async def failed(self, error: TeacherError) -> Response | None:
        result = self.deferral.fail(error)
        return _answer(self.question.face, self.read, result) if isinstance(result, Decision) else None


class _WithinBudget(Response):
    """The relayed answer to a deferred call, or the refusal if the teacher's budget is spent."""

    def __init__(self, relay: Relay, learner: _Learner, limit: SpendLimit) -> None:
        self.relay, self.learner, self.limit, self.background = relay, learner, limit, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            async with paid_call(self.limit, self.learner.paid):
                await self.relay(scope, receive, send)
        except BudgetError as error:
            instead = await self.learner.failed(error) or respond(error, self.relay.added)
            await instead(scope, receive, send)


def _forward(asked: _Asked, read: ForeignCall) -> Response:
    asked.runtime.metrics.forwarded(read.reason)
    forwarder, face = asked.chat.forwarder, asked.face
    if not takes(forwarder, face.path, face.protocol):
        raise _nowhere(asked, read)
    headers = {"x-tracer-decision": "forwarded", "x-tracer-reason": read.reason}
    seen = None if read.call is None else asked.chat.forwarded.note(read.call, read.reason, read.nearest, read.detail)
    return Relay(forwarder, face.path, asked.body, asked.request, headers=headers, observer=seen)


def _require_json(body: bytes) -> None:
    """Refuse a body that is not JSON; upstream judges other bodies that are no calls."""
    try:
        body.decode("utf-8")
        json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, f"the body is not JSON: {error}", code="invalid_json") from None


def _metadata(request: Request, read: TaskCall) -> dict[str, Any]:
    user = read.call.user
    return metadata_of(user[:_USER] if user is not None else None, request)


def _others(result: Decision) -> dict[str, Any]:
    """Return the teacher's values of fields of text and number, if it was asked."""
    return {} if result.answer is None else result.answer.others


def _answer(face: Face, read: TaskCall, result: Decision) -> Response:
    score = None if result.verdict is None else result.verdict.score
    call_id = f"call_{result.trace_id.replace('-', '')}"
    message, finish = read.shape.message(result.label, call_id, score, _others(result))
    # the teacher's answer is not the version's, whatever model was asked
    fingerprint = None if result.kind == "deferred" else f"tracer-version-{result.version}"
    model, usage = read.call.form.model, usage_of([result])
    reply = Reply(result.trace_id, int(time.time()), model, read.call.body, message, finish, usage, fingerprint)
    headers = headers_of([result], single=True) | {"x-tracer-reason": result.reason}
    if read.call.stream:
        headers |= {"cache-control": "no-cache"}
        return Response(face.events(reply), headers=headers, media_type="text/event-stream")
    return JsonAnswer(face.answer(reply), headers=headers)


def _headers_of(deferral: Deferral) -> dict[str, str]:
    """Return the headers that say why a call is answered upstream."""
    headers = {
        "x-tracer-decision": "deferred",
        "x-tracer-reason": deferral.reason,
        "x-tracer-trace-id": deferral.trace_id,
    }
    if deferral.version is not None:
        headers["x-tracer-version"] = str(deferral.version)
    score = finite(None if deferral.verdict is None else deferral.verdict.score)
    return headers if score is None else headers | {"x-tracer-score": str(score)}


def _nowhere(asked: _Asked, read: ForeignCall) -> RefusalError:
    spec = asked.runtime.task.spec
    model = f" of the model {read.call.form.model[:64]!r}" if read.call else ""
    why = why_nowhere(spec, asked.face.path)
    return RefusalError(
        404,
        f"this call{model} is not of a known form of the task {spec.name!r} ({read.detail}), and there is nowhere to"
        f" forward it to: {why}. To classify a text, ask the model {spec.name!r} with the text as the only message",
        code="model_not_found",
        param="model",
        headers={"x-tracer-reason": read.reason},
    )


def why_nowhere(spec: Spec, path: str) -> str:
    """Return why a task does not forward the calls of a path."""
    if not spec.server.forward:
        return "server.forward is off"
    return f"the teacher {spec.teacher.type!r} has no endpoint for /v1/{path[:64]}"
