"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

import json
from collections.abc import Mapping
from typing import Any

from tracer_serve.forms.calls import CHAT
from tracer_serve.server.chat.face import Face, Reply
from tracer_serve.server.chat.read_answer import read_answer


def _answer(reply: Reply) -> dict[str, Any]:
    choice = {"index": 0, "message": reply.message, "logprobs": None, "finish_reason": reply.finish}
    return _head(reply) | {"object": "chat.completion", "choices": [choice], "usage": reply.usage}


def _head(reply: Reply) -> dict[str, Any]:
    head = {"id": f"chatcmpl-{reply.trace_id}", "created": reply.created, "model": reply.model}
    return head if reply.fingerprint is None else head | {"system_fingerprint": reply.fingerprint}


def _events(reply: Reply) -> bytes:
    chunks: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": "", "refusal": None}, None)]
    chunks += [(delta, None) for delta in _deltas(reply.message)]
    chunks.append(({}, reply.finish))
    options = reply.asked.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    extra: dict[str, Any] = {"usage": None} if with_usage else {}
    bodies = [
        {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}], **extra}
        for delta, end in chunks
    ]
    if with_usage:
        bodies.append({"choices": [], "usage": reply.usage})
    shared = _head(reply) | {"object": "chat.completion.chunk"}
    written = [json.dumps(shared | body) for body in bodies]
    return "".join(f"data: {event}\n\n" for event in [*written, "[DONE]"]).encode("ascii")


def _deltas(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what follows the role: the content, or a call's name and then its arguments."""
    if (called := message.get("function_call")) is not None:
        return [{"function_call": called | {"arguments": ""}}, {"function_call": {"arguments": called["arguments"]}}]
    if not (calls := message.get("tool_calls")):
        return [{"content": message["content"]}]
    (call,) = calls
    function = call["function"]
    return [
        {"tool_calls": [{"index": 0, **call, "function": function | {"arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": function["arguments"]}}]},
    ]


COMPLETIONS = Face(CHAT, "chat/completions", "openai", "messages", _answer, _events, read_answer)
"""The face of chat completions."""
