"""The route of the drop-in: read, recognise, answer or pass on."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.config.task import Spec
from tracer_serve.errors import TeacherError, TracerServeError
from tracer_serve.server.chat.forward import Forwarder, Relay
from tracer_serve.server.chat.recognise import Call, Recogniser
from tracer_serve.server.chat.request import ChatRequest
from tracer_serve.server.chat.stream import events
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import explain, read_json
from tracer_serve.server.routes.classify import headers_of, metadata_of, says_something, usage_of
from tracer_serve.serving.runtime import Runtime
from tracer_serve.types import Decision

FOREIGN = "tracer_serve.foreign"
"""True in the scope of a call that was found to be of no task: it may look like one of this task all the same."""

_USER = 256  # characters of a user's name that are kept, as in /v1/classify


@dataclass(frozen=True, slots=True)
class Chat:
    """What the route needs beside the runtime; no `forwarder` where the teacher has no endpoint to pass calls on to."""

    recogniser: Recogniser
    forwarder: Forwarder | None


@asynccontextmanager
async def chatting(runtime: Runtime) -> AsyncIterator[Chat]:
    """Open what the route needs, and close it at the end."""
    spec, teacher = runtime.task.spec, runtime.router.teacher
    prompt = getattr(teacher, "prompt", None)
    prompts = []
    if isinstance(prompt, Prompt):
        described = spec.labels if isinstance(spec.labels, dict) else {}
        # the teacher's own has the labels sorted; a caller's has them in the order of the YAML, as likely as not
        prompts = [prompt.messages, Prompt(prompt.template, spec.label_names, described).messages]
    recogniser = Recogniser(spec.name, spec.input, lambda: spec.label_names or runtime.classes(), prompts)
    endpoints = getattr(teacher, "endpoints", ()) if spec.server.forward else ()
    forwarder = Forwarder(endpoints) if endpoints else None
    try:
        yield Chat(recogniser, forwarder)
    finally:
        if forwarder is not None:
            await forwarder.close()


async def completions(request: Request) -> Response:
    """Answer one request."""
    runtime, chat = runtime_of(request), request.app.state.chat
    body = await read_json(request, runtime.max_body)
    asked = _parsed(body, chat)
    call = None if asked is None or request.scope.get(FOREIGN) else chat.recogniser.read(asked)
    if asked is not None and call is not None:
        result = await _label(runtime, request, asked, call)
        if call.shape.takes(result.label):
            return _answer(asked, call, result)
        if chat.forwarder is None:
            raise TeacherError(
                f"the teacher's label {result.label!r} is none of the enum that was asked for", reason="unknown_label"
            )
        return Relay(chat.forwarder, "chat/completions", body, request)
    if chat.forwarder is None:
        raise _nowhere(runtime, asked)
    return Relay(chat.forwarder, "chat/completions", body, request)


def _parsed(body: bytes, chat: Chat) -> ChatRequest | None:
    """Return the request; None where it is no such request, but might be one to somebody else."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        refusal = explain(error, body)
        if refusal.reason == "invalid_json" or chat.forwarder is None:
            raise refusal from None
    try:
        named = json.loads(body)["model"] == chat.recogniser.name
    except (ValueError, RecursionError, LookupError, TypeError):
        named = False
    if named:
        raise refusal
    return None


async def _label(runtime: Runtime, request: Request, asked: ChatRequest, call: Call) -> Decision:
    if not says_something(call.text):
        raise RefusalError(400, "the text to classify is empty", param="messages")
    (result,) = await runtime.router.route([call.text], metadata_of(asked.user and asked.user[:_USER], request))
    if isinstance(result, TracerServeError):
        raise result
    return result


def _answer(asked: ChatRequest, call: Call, result: Decision) -> Response:
    message, finish = call.shape.message(result.label, f"call_{result.trace_id.replace('-', '')}")
    head, usage = _head(asked, result), usage_of([result])
    headers = headers_of([result], single=True)
    if asked.stream:
        wanted = asked.stream_options is not None and asked.stream_options.include_usage
        content = events(head, message, finish, usage if wanted else None)
        return Response(content, headers=headers | {"cache-control": "no-cache"}, media_type="text/event-stream")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    answer = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    return JsonAnswer(answer, headers=headers)


def _head(asked: ChatRequest, result: Decision) -> dict[str, Any]:
    head = {"id": f"chatcmpl-{result.trace_id}", "created": int(time.time()), "model": asked.model}
    if result.kind != "deferred":  # not the teacher's, whatever model was asked
        head["system_fingerprint"] = f"tracer-version-{result.version}"
    return head


def _nowhere(runtime: Runtime, asked: ChatRequest | None) -> RefusalError:
    spec = runtime.task.spec
    model = "" if asked is None else f" of the model {asked.model[:64]!r}"
    return RefusalError(
        404,
        f"this call{model} is not one of the task {spec.name!r}, and there is nowhere to pass it on to:"
        f" {why_nowhere(spec)}. To classify, ask the model {spec.name!r}, or give the label set as the enum of a JSON"
        " schema",
        code="model_not_found",
        param="model",
    )


def why_nowhere(spec: Spec) -> str:
    """Return why a task passes no calls on."""
    return "server.forward is off" if not spec.server.forward else f"the teacher {spec.teacher.type!r} has no endpoint"
