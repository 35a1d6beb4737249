"""Anthropic's Messages API: ``POST /v1/messages``."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tracer_serve.components.teachers._message import as_completion
from tracer_serve.errors import TeacherError
from tracer_serve.forms.calls import MESSAGES
from tracer_serve.server.chat.face import Face, Reply, named_events
from tracer_serve.server.chat.read_answer import MALFORMED, LlmAnswer, answer_of, stream_events


def _answer(reply: Reply) -> dict[str, Any]:
    reason = "end_turn" if reply.called is None else "tool_use"
    return _begun(reply) | {"content": [_block(reply)], "stop_reason": reason, "usage": _usage(reply)}


def _begun(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{_hex(reply)}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(reply) | {"output_tokens": 0},
    }


def _block(reply: Reply) -> dict[str, Any]:
    if (called := reply.called) is not None:
        written = json.loads(called["arguments"])
        return {"type": "tool_use", "id": f"toolu_{_hex(reply)}", "name": called["name"], "input": written}
    return {"type": "text", "text": reply.message["content"], "citations": None}


def _usage(reply: Reply) -> dict[str, Any]:
    counts = {"input_tokens": reply.usage["prompt_tokens"], "output_tokens": reply.usage["completion_tokens"]}
    return counts | {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def _hex(reply: Reply) -> str:
    return reply.trace_id.replace("-", "")


def _events(reply: Reply) -> bytes:
    return named_events(_stream(reply))


def _stream(reply: Reply) -> Iterator[dict[str, Any]]:
    whole = _answer(reply)
    (block,) = whole["content"]
    yield {"type": "message_start", "message": _begun(reply)}
    empty: dict[str, Any]
    if block["type"] == "text":
        empty, delta = {"text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        empty, delta = {"input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield {"type": "content_block_start", "index": 0, "content_block": block | empty}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": whole["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def _read(body: bytes, *, stream: bool) -> LlmAnswer:
    try:
        return answer_of(as_completion(_joined(body) if stream else json.loads(body)))
    except MALFORMED:
        raise TeacherError("the answer is no message with content", reason="unavailable") from None


def _joined(body: bytes) -> dict[str, Any]:
    """Put the pieces of a stream together; a stream without its end is no answer."""
    whole: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    written: dict[int, str] = {}
    ended = False
    for event in stream_events(body):
        kind = event["type"] if event else None
        if event is None or kind == "ping":
            continue
        if kind == "message_start":
            whole = dict(event["message"])
        elif kind == "content_block_start":
            blocks[event["index"]] = dict(event["content_block"])
        elif kind == "content_block_delta":
            _add(blocks[event["index"]], written, event)
        elif kind == "message_delta":
            whole |= event["delta"]
            whole["usage"] = {**(whole.get("usage") or {}), **(event.get("usage") or {})}
        ended = ended or kind == "message_stop"
    if not ended:
        raise ValueError("the stream has no end")
    for index, said in written.items():
        blocks[index]["input"] = json.loads(said or "{}")
    return whole | {"content": [blocks[index] for index in sorted(blocks)]}


def _add(block: dict[str, Any], written: dict[int, str], event: Mapping[str, Any]) -> None:
    delta = event["delta"]
    if delta["type"] == "text_delta":
        block["text"] += delta["text"]
    elif delta["type"] == "input_json_delta":
        written[event["index"]] = written.get(event["index"], "") + delta["partial_json"]


MESSAGES_API = Face(MESSAGES, "messages", "anthropic", "messages", _answer, _events, _read)
"""The face of the Messages API."""
