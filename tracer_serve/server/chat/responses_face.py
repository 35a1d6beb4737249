"""OpenAI's Responses API: ``POST /v1/responses``."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tracer_serve.errors import TeacherError
from tracer_serve.forms.calls import RESPONSES
from tracer_serve.server.chat.face import Face, Reply, named_events
from tracer_serve.server.chat.read_answer import MALFORMED, LlmAnswer, require_end, stream_events, token_counts

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Fields of a request that its response repeats, with the values where they are not given."""

_ENDS = ("response.completed", "response.incomplete", "response.failed")


def _answer(reply: Reply) -> dict[str, Any]:
    usage = {
        "input_tokens": reply.usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": reply.usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.usage["total_tokens"],
    }
    return _begun(reply) | {"status": "completed", "output": [_item(reply)], "usage": usage}


def _begun(reply: Reply) -> dict[str, Any]:
    """Return the response before its first output; nothing of it can be retrieved later."""
    asked = {name: reply.asked[name] for name in _ECHOED if reply.asked.get(name) is not None}
    return {
        "id": f"resp_{_hex(reply)}",
        "object": "response",
        "created_at": reply.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": reply.model,
        "output": [],
        "store": False,
        "usage": None,
        **_ECHOED,
        **asked,
    }


def _item(reply: Reply) -> dict[str, Any]:
    if (called := reply.called) is not None:
        call = {"call_id": f"call_{_hex(reply)}", "name": called["name"], "arguments": called["arguments"]}
        return {"id": f"fc_{_hex(reply)}", "type": "function_call", "status": "completed", **call}
    part = {"type": "output_text", "text": reply.message["content"], "annotations": [], "logprobs": []}
    return _message(reply) | {"status": "completed", "content": [part]}


def _message(reply: Reply) -> dict[str, Any]:
    return {"id": f"msg_{_hex(reply)}", "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def _hex(reply: Reply) -> str:
    return reply.trace_id.replace("-", "")


def _events(reply: Reply) -> bytes:
    return named_events({**event, "sequence_number": i} for i, event in enumerate(_stream(reply)))


def _stream(reply: Reply) -> Iterator[dict[str, Any]]:
    begun, item = _begun(reply), _item(reply)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    called = item["type"] == "function_call"
    empty = item | {"status": "in_progress", "arguments": ""} if called else _message(reply)
    yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
    yield from _of_call(item) if called else _of_text(item)
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": _answer(reply)}


def _of_call(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0}
    written = item["arguments"]
    yield {"type": "response.function_call_arguments.delta", **place, "delta": written}
    yield {"type": "response.function_call_arguments.done", **place, "name": item["name"], "arguments": written}


def _of_text(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    (part,) = item["content"]
    said: dict[str, Any] = {"logprobs": []}
    yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}
    yield {"type": "response.output_text.delta", **place, "delta": part["text"], **said}
    yield {"type": "response.output_text.done", **place, "text": part["text"], **said}
    yield {"type": "response.content_part.done", **place, "part": part}


def _read(body: bytes, *, stream: bool) -> LlmAnswer:
    try:
        whole = _end_of(body) if stream else json.loads(body)
        status, output, given = whole["status"], whole["output"], whole.get("usage") or {}
        parts = [part for item in output if item["type"] == "message" for part in item["content"]]
        said = "".join(part["text"] for part in parts if part["type"] == "output_text")
        calls = [
            {"function": {"name": item["name"], "arguments": item["arguments"]}}
            for item in output
            if item["type"] == "function_call"
        ]
        refused = any(part["type"] == "refusal" for part in parts)
        why = (whole.get("incomplete_details") or {}).get("reason")
        usage = {"prompt_tokens": given.get("input_tokens"), "completion_tokens": given.get("output_tokens")}
    except MALFORMED:
        raise TeacherError("the answer is no response with output", reason="unavailable") from None
    require_end(refused=refused or why == "content_filter", cut=status == "incomplete")
    if status != "completed":
        raise TeacherError("the response was not completed", reason="unavailable")
    return LlmAnswer({"content": said or None, "tool_calls": calls}, token_counts(usage))


def _end_of(body: bytes) -> dict[str, Any]:
    """Return the response that the last event of a stream holds; a stream without its end is no answer."""
    ends = [event["response"] for event in stream_events(body) if event and event.get("type") in _ENDS]
    found: dict[str, Any] = ends[-1]
    return found


RESPONSES_API = Face(RESPONSES, "responses", "openai", "input", _answer, _events, _read)
"""The face of the Responses API."""
