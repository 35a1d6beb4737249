"""A finished answer as the server-sent events that OpenAI's clients put together again."""

import json
from typing import Any


def events(head: dict[str, Any], message: dict[str, Any], finish: str, usage: dict[str, int] | None) -> bytes:
    """Return a whole stream; a label is too short to be worth cutting up.

    Parameters
    ----------
    head : ``id``, ``created``, ``model`` and whatever else each chunk repeats
    usage : None where the caller did not ask for it
    """
    chunks: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": "", "refusal": None}, None)]
    chunks += [(delta, None) for delta in _deltas(message)]
    chunks.append(({}, finish))
    extra: dict[str, Any] = {} if usage is None else {"usage": None}
    bodies = [
        {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}], **extra}
        for delta, end in chunks
    ]
    if usage is not None:
        bodies.append({"choices": [], "usage": usage})
    shared = head | {"object": "chat.completion.chunk"}
    written = [json.dumps(shared | body) for body in bodies]
    return "".join(f"data: {event}\n\n" for event in [*written, "[DONE]"]).encode("ascii")


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
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
