"""``POST /v1/chat/completions``: recognise a call, then answer it, learn from upstream's answer, or forward it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tracer_serve.components.teachers._ask_many import concurrency_of
from tracer_serve.components.teachers._labels import LabelSet
from tracer_serve.config.task import Spec
from tracer_serve.errors import TeacherError, TracerServeError
from tracer_serve.forms.known import AMBIGUOUS, NATIVE, NOT_A_CALL
from tracer_serve.infra.redaction import redact_text
from tracer_serve.server.chat.forward import Forwarder, passed_on
from tracer_serve.server.chat.read_answer import read_answer
from tracer_serve.server.chat.recognise import ForeignCall, Recogniser, TaskCall
from tracer_serve.server.chat.relay import Relay
from tracer_serve.server.chat.stream import events
from tracer_serve.server.chat.upstream_question import UpstreamQuestion
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import read_json
from tracer_serve.server.routes.classify import finite, headers_of, metadata_of, says_something, usage_of
from tracer_serve.serving.forwarded_calls import ForwardedCalls, LabelOf
from tracer_serve.serving.router import Deferral
from tracer_serve.serving.runtime import Runtime
from tracer_serve.types import Decision

FOREIGN = "tracer_serve.foreign"
"""True in the scope of a call that was found to be of no task: it may look like one of this task all the same."""

_PATH = "chat/completions"
_USER = 256  # characters of a user's name that are kept, as in /v1/classify
_QUEUE = 256  # deferred calls that may wait for a place upstream


@dataclass(frozen=True, slots=True)
class Chat:
    """What the route needs beside the runtime.

    Parameters
    ----------
    forwarder : for calls that are not the task's; None where the teacher has no endpoint to forward them to
    deferrals : for the task's own calls, whose places no other call can take
    forwarded : the sample of the calls that were not recognised
    """

    recogniser: Recogniser
    forwarder: Forwarder | None
    deferrals: Forwarder | None
    forwarded: ForwardedCalls


@asynccontextmanager
async def chatting(runtime: Runtime) -> AsyncIterator[Chat]:
    """Open what the route needs, and close it at the end."""
    spec, teacher = runtime.task.spec, runtime.router.teacher

    def labels() -> tuple[str, ...]:
        return spec.label_names or runtime.classes()

    recogniser = Recogniser(spec.name, runtime.forms, labels, pair=spec.input == "pair")
    endpoints = getattr(teacher, "endpoints", ())
    forwarder = Forwarder(endpoints) if endpoints and spec.server.forward else None
    at_once = concurrency_of(spec.teacher.params)
    deferrals = Forwarder(endpoints, concurrency=at_once, queue=_QUEUE, weight=8) if endpoints else None
    redact = redact_text(runtime.router.redact)
    forwarded = ForwardedCalls(runtime.store, spec.server.sample_forwarded, redact, _label_of(labels))
    await asyncio.to_thread(forwarded.start)
    try:
        yield Chat(recogniser, forwarder, deferrals, forwarded)
    finally:
        await asyncio.to_thread(forwarded.stop)
        for opened in (forwarder, deferrals):
            if opened is not None:
                await opened.close()


def _label_of(labels: Callable[[], Sequence[str]]) -> LabelOf:
    """Return a function that finds one of the labels in the body of an answer."""

    def find(body: bytes, stream: bool) -> str | None:
        try:
            said = read_answer(body, stream=stream).message.get("content")
            return LabelSet(labels()).parse(said) if isinstance(said, str) and labels() else None
        except TeacherError:
            return None

    return find


async def completions(request: Request) -> Response:
    """Answer one request."""
    runtime, chat = runtime_of(request), request.app.state.chat
    body = await read_json(request, runtime.max_body)
    read = chat.recogniser.read(body)
    if isinstance(read, TaskCall) and request.scope.get(FOREIGN):
        read = ForeignCall(AMBIGUOUS, read.known.name, "several tasks have this form", read.call)
    if isinstance(read, TaskCall):
        if not says_something(read.text):
            raise RefusalError(400, "the text to classify is empty", param="messages")
        if read.known.fingerprint == NATIVE:
            return await _direct(runtime, request, read)
        if chat.deferrals is not None:
            return await _drop_in(runtime, chat, request, read, body)
        raise AssertionError("a form other than the direct one comes with an endpoint")
    if read.reason == NOT_A_CALL:
        _require_json(body)
    return _forward(runtime, chat, request, body, read)


async def _direct(runtime: Runtime, request: Request, read: TaskCall) -> Response:
    """Answer a call that names the task: as ``/v1/classify`` does, in the shape of a chat completion."""
    (result,) = await runtime.router.route([read.text], _metadata(request, read))
    if isinstance(result, TracerServeError):
        raise result
    if problem := read.shape.problem(result.label):
        raise TeacherError(f"the teacher's label cannot be given: {problem}", reason="unknown_label")
    return _answer(read, result)


async def _drop_in(runtime: Runtime, chat: Chat, request: Request, read: TaskCall, body: bytes) -> Response:
    """Answer a call of another known form, or send it upstream as it came and learn its label."""
    assert chat.deferrals is not None
    router, known, teacher = runtime.router, read.known, runtime.router.teacher
    question = UpstreamQuestion(
        form=known.fingerprint,
        certified_as=known.certified_as,
        fingerprint=router.fingerprint if known.certified_as == NATIVE else known.certified_as,
        forwarder=chat.deferrals,
        body=body,
        headers=passed_on(request, again=True),
        shape=read.shape,
        labels=LabelSet(runtime.task.spec.label_names),
        price=getattr(teacher, "price", None),
    )

    def fits(label: str) -> bool:
        return read.shape.problem(label) is None

    found = await router.decide(read.text, question, _metadata(request, read), fits=fits)
    if isinstance(found, Decision):
        return _answer(read, found)
    headers = _headers_of(found)
    learner = _Learner(found, question, read)
    return Relay(chat.deferrals, _PATH, body, request, headers=headers, learner=learner)


@dataclass(frozen=True, slots=True)
class _Learner:
    """Takes what upstream answered to a deferred call."""

    deferral: Deferral
    question: UpstreamQuestion
    read: TaskCall
    started: float = field(default_factory=time.monotonic)

    async def answered(self, body: bytes, *, stream: bool) -> None:
        try:
            answer = self.question.read(body, stream=stream, started=self.started)
        except TeacherError as error:
            self.deferral.fail(error, degrades=False)
        else:
            await self.deferral.learn(answer)

    async def failed(self, error: TeacherError) -> Response | None:
        result = self.deferral.fail(error)
        return _answer(self.read, result) if isinstance(result, Decision) else None


def _forward(runtime: Runtime, chat: Chat, request: Request, body: bytes, read: ForeignCall) -> Response:
    runtime.metrics.forwarded(read.reason)
    if chat.forwarder is None:
        raise _nowhere(runtime, read)
    headers = {"x-tracer-decision": "forwarded", "x-tracer-reason": read.reason}
    seen = None if read.call is None else chat.forwarded.note(read.call, read.reason, read.nearest, read.detail)
    return Relay(chat.forwarder, _PATH, body, request, headers=headers, observer=seen)


def _require_json(body: bytes) -> None:
    """Refuse what is no JSON at all; other bodies that are no calls are upstream's to judge."""
    try:
        body.decode("utf-8")
        json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, f"the body is not JSON: {error}", code="invalid_json") from None


def _metadata(request: Request, read: TaskCall) -> dict[str, Any]:
    user = read.call.body.get("user")
    return metadata_of(user[:_USER] if isinstance(user, str) else None, request)


def _answer(read: TaskCall, result: Decision) -> Response:
    score = None if result.verdict is None else result.verdict.score
    message, finish = read.shape.message(result.label, f"call_{result.trace_id.replace('-', '')}", score)
    head, usage = _head(read.call.form.model, result), usage_of([result])
    headers = headers_of([result], single=True) | {"x-tracer-reason": result.reason}
    if read.call.stream:
        options = read.call.body.get("stream_options")
        wanted = isinstance(options, dict) and options.get("include_usage") is True
        content = events(head, message, finish, usage if wanted else None)
        return Response(content, headers=headers | {"cache-control": "no-cache"}, media_type="text/event-stream")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    answer = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    return JsonAnswer(answer, headers=headers)


def _head(model: str, result: Decision) -> dict[str, Any]:
    head = {"id": f"chatcmpl-{result.trace_id}", "created": int(time.time()), "model": model}
    if result.kind != "deferred":  # not the teacher's, whatever model was asked
        head["system_fingerprint"] = f"tracer-version-{result.version}"
    return head


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


def _nowhere(runtime: Runtime, read: ForeignCall) -> RefusalError:
    spec = runtime.task.spec
    model = f" of the model {read.call.form.model[:64]!r}" if read.call else ""
    return RefusalError(
        404,
        f"this call{model} is not of a known form of the task {spec.name!r} ({read.detail}), and there is nowhere to"
        f" forward it to: {why_nowhere(spec)}. To classify a text, ask the model {spec.name!r} with the text as the"
        " only message",
        code="model_not_found",
        param="model",
        headers={"x-tracer-reason": read.reason},
    )


def why_nowhere(spec: Spec) -> str:
    """Return why a task forwards no calls."""
    return "server.forward is off" if not spec.server.forward else f"the teacher {spec.teacher.type!r} has no endpoint"
