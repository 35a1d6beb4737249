"""Parse an answer of Anthropic's Messages API, in the vocabulary of chat completions."""

import json
from collections.abc import Mapping
from typing import Any

from tracer_serve.components.teachers._completion import Completion
from tracer_serve.errors import TeacherError

_FINISH = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "content_filter",
}
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def as_completion(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a chat completion. Cached input tokens count as prompt tokens.

    Raises
    ------
    LookupError, TypeError, AttributeError
        If it is no message.

    Examples
    --------
    >>> said = {"content": [{"type": "text", "text": "red"}], "stop_reason": "end_turn", "usage": {"input_tokens": 9}}
    >>> as_completion(said)["choices"][0]["message"]["content"]
    'red'
    """
    blocks, given = message["content"], message.get("usage") or {}
    said = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [
        {"id": block.get("id"), "function": {"name": block["name"], "arguments": json.dumps(block["input"])}}
        for block in blocks
        if block["type"] == "tool_use"
    ]
    answer: dict[str, Any] = {"content": said or None} | ({"tool_calls": calls} if calls else {})
    counted = [given[name] for name in _INPUT if isinstance(given.get(name), int | float)]
    tokens = {"prompt_tokens": sum(counted)} if counted else {}
    usage = tokens | {"completion_tokens": given.get("output_tokens")}
    finish = _FINISH.get(message["stop_reason"], "stop")
    choice = {"index": 0, "message": answer, "finish_reason": finish}
    return {"model": message.get("model"), "choices": [choice], "usage": usage}


def read_message(body: str, server: str) -> Completion:
    """Parse a response's body, as `Completion.read` does.

    Raises
    ------
    TeacherError
        ``unavailable`` if the body is not one.
    """
    try:
        whole = as_completion(json.loads(body))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TeacherError(f"{server} answered 200, but not with a message", reason="unavailable") from None
    return Completion.read(json.dumps(whole), server)
