"""Read an LLM's answer out of a chat completion: the message and the tokens, of a JSON body or of a stream."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tracer_serve.errors import TeacherError

_COUNTS = ("prompt_tokens", "completion_tokens")
_MOST_TOKENS = 1_000_000_000  # in one answer; more are a server's mistake, and would spoil every sum


MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading an answer of another shape raises."""


@dataclass(frozen=True, slots=True)
class LlmAnswer:
    """What an LLM answered, in the vocabulary of chat completions whatever its API.

    Parameters
    ----------
    message : with ``content``, ``tool_calls`` or ``function_call``
    usage : tokens, as far as the server counts them
    """

    message: Mapping[str, Any]
    usage: dict[str, int]


def read_answer(body: bytes, *, stream: bool) -> LlmAnswer:
    """Parse the body of a completed answer.

    Parameters
    ----------
    stream : whether it is server-sent events

    Raises
    ------
    TeacherError
        ``unavailable`` where it is no completion, ``rejected`` for a refusal, ``unknown_label`` for one cut short.
    """
    try:
        return answer_of(_joined(body) if stream else json.loads(body))
    except MALFORMED:
        raise TeacherError("the answer is no chat completion with one choice", reason="unavailable") from None


def answer_of(completion: Mapping[str, Any]) -> LlmAnswer:
    """Return what a chat completion says.

    Raises
    ------
    TeacherError
        ``rejected`` for a refusal, ``unknown_label`` for one cut short; one of `MALFORMED` where it is none.
    """
    (choice,) = completion["choices"]
    message, finish = choice["message"], choice.get("finish_reason")
    refused = bool(message.get("refusal")) or finish == "content_filter"
    require_end(refused=refused, cut=finish == "length")
    return LlmAnswer(message, token_counts(completion.get("usage")))


def require_end(*, refused: bool, cut: bool) -> None:
    """Raise where an answer says nothing, or not all.

    Raises
    ------
    TeacherError
        ``rejected`` for a refusal, ``unknown_label`` for one cut short.
    """
    if refused:
        raise TeacherError("the model refused to answer", reason="rejected")
    if cut:
        raise TeacherError("the answer hit the token limit before its end", reason="unknown_label")


def _joined(body: bytes) -> dict[str, Any]:
    """Put the pieces of a stream together; a stream without its end is no answer."""
    message: dict[str, Any] = {"content": None}
    finish, usage, called = None, None, dict[str, Any]()
    ended = False
    for event in stream_events(body):
        if event is None:
            ended = True
            continue
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            delta = choice["delta"]
            finish = choice.get("finish_reason") or finish
            if delta.get("content"):
                message["content"] = (message["content"] or "") + delta["content"]
            message["refusal"] = delta.get("refusal") or message.get("refusal")
            for call in delta.get("tool_calls") or ():
                if call["index"] == 0:
                    _append(called, call["function"])
                    message["tool_calls"] = [{"function": called}]
            if delta.get("function_call"):
                _append(called, delta["function_call"])
                message["function_call"] = called
    if not ended:
        raise ValueError("the stream has no end")
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def stream_events(body: bytes) -> Iterator[dict[str, Any] | None]:
    """Yield the events of a stream, None for its end."""
    for line in body.splitlines():
        if line.startswith(b"data:"):
            data = line.removeprefix(b"data:").strip()
            yield None if data == b"[DONE]" else json.loads(data)


def _append(called: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name in ("name", "arguments"):
        if part.get(name):
            called[name] = called.get(name, "") + part[name]


def token_counts(given: Any) -> dict[str, int]:
    """Return the counts that can be counts; malformed ones are dropped, because the answer was paid for."""
    counts = given if isinstance(given, dict) else {}
    return {
        name: int(n) for name in _COUNTS if isinstance(n := counts.get(name), int | float) and 0 <= n <= _MOST_TOKENS
    }
