"""A face: how one LLM API asks, and in which shape it answers. Decisions are made behind it, in `route`."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tracer_serve.server.chat.read_answer import LlmAnswer


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of this server, in the vocabulary of chat completions.

    Parameters
    ----------
    trace_id : of the decision
    created : seconds since 1970
    model : as the caller named it
    asked : the caller's body
    message, finish : as `answer_shape.Shape.message` returns them
    usage : ``prompt_tokens``, ``completion_tokens``, ``total_tokens``
    fingerprint : what answered, where it was not the teacher
    """

    trace_id: str
    created: int
    model: str
    asked: Mapping[str, Any]
    message: Mapping[str, Any]
    finish: str
    usage: Mapping[str, int]
    fingerprint: str | None

    @property
    def called(self) -> Mapping[str, Any] | None:
        """The function that is called: its ``name`` and ``arguments``."""
        calls = self.message.get("tool_calls")
        function: Mapping[str, Any] | None = calls[0]["function"] if calls else None
        return function


class ReadAnswer(Protocol):
    """Reads an upstream answer."""

    def __call__(self, body: bytes, *, stream: bool) -> LlmAnswer:
        """Read it, as `read_answer.read_answer` does."""


@dataclass(frozen=True, slots=True)
class Face:
    """An API.

    Parameters
    ----------
    api : as in `forms.form.Form`
    path : of its route, below ``/v1/``
    protocol : of the endpoints that take its calls: ``openai`` or ``anthropic``
    texts : name of the field with the messages
    answer : returns the body of an answer
    events : returns a whole answer as server-sent events; a label is too short to be worth cutting up
    read : reads an upstream answer
    """

    api: str
    path: str
    protocol: str
    texts: str
    answer: Callable[[Reply], dict[str, Any]]
    events: Callable[[Reply], bytes]
    read: ReadAnswer


def named_events(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Return server-sent events that are named by their type."""
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode("ascii")
