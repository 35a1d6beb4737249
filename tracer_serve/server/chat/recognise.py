"""Whether a call is the task's own, and which text it is about."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tracer_serve.server.chat.answer_shape import Shape, shape_of
from tracer_serve.server.chat.fill_schema import UnfillableError
from tracer_serve.server.chat.request import ChatRequest, Message
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.types import Text

Messages = Callable[[Text], list[dict[str, Any]]]
_MARKS = ("\x00first\x00", "\x00second\x00")
_PAIR = ("Text 1:\n", "\n\nText 2:\n", "")  # as `teachers._prompt.Prompt` writes a pair


@dataclass(frozen=True, slots=True)
class Call:
    """A call of this task: the text, the shape its label is wanted in, and whether the prompt was the task's."""

    text: Text
    shape: Shape
    prompted: bool


class Recogniser:
    """Tells this task's calls from all others.

    A call is the task's own by its model name, by the teacher's prompt around the text, or by a JSON schema (of the
    response or of a function) in which the label set is an ``enum``. The text is what stands in the prompt's slot, else
    the last message, which has to be the user's.

    Parameters
    ----------
    name : of the task
    pair : whether it classifies pairs
    labels : says the label set
    prompts : each makes the messages that ask the teacher about a text
    """

    def __init__(
        self,
        name: str,
        kind: Literal["text", "pair"],
        labels: Callable[[], Sequence[str]],
        prompts: Sequence[Messages] = (),
    ) -> None:
        self.name, self.pair, self._labels = name, kind == "pair", labels
        marks: Text = _MARKS if self.pair else _MARKS[0]
        self._templates = [[_Around.of(message) for message in prompt(marks)] for prompt in prompts]

    def read(self, asked: ChatRequest) -> Call | None:
        """Return the call, None where it is not this task's.

        Raises
        ------
        RefusalError
            Where it names the task and asks for what the task cannot give.
        """
        try:
            return self._read(asked)
        except UnfillableError as error:
            if asked.model != self.name:
                return None
            raise RefusalError(
                400, f"{self.name} answers with one of its labels; {error}", param=_culprit(asked)
            ) from None

    def _read(self, asked: ChatRequest) -> Call | None:
        if (asked.n or 1) != 1 or asked.logprobs:
            raise UnfillableError("n other than 1, and logprobs, are not given")
        shape = shape_of(asked, frozenset(self._labels()))
        parts = self._in_template(asked.messages)
        prompted = parts is not None
        if parts is None and (asked.model == self.name or shape.schema is not None):
            parts = self._in_last(asked.messages[-1])
            if parts is None:
                wanted = 'a pair: "Text 1:" and so on, or a JSON list of two texts' if self.pair else "a text"
                raise UnfillableError(f"the last message has to be the user's, with {wanted}")
        if parts is None:
            return None
        return Call((parts[0], parts[1]) if self.pair else parts[0], shape, prompted)

    def _in_template(self, messages: Sequence[Message]) -> tuple[str, ...] | None:
        for template in self._templates:
            if len(template) == len(messages):
                found = [around.read(message) for around, message in zip(template, messages, strict=True)]
                parts = tuple(part for inside in found if inside is not None for part in inside)
                if None not in found and len(parts) == 1 + self.pair:
                    return parts
        return None

    def _in_last(self, message: Message) -> tuple[str, ...] | None:
        said = message.text
        if message.role != "user" or said is None:
            return None
        if not self.pair:
            return (said,)
        return _Around("user", _PAIR).read(message) or _two(said)


@dataclass(frozen=True, slots=True)
class _Around:
    """A message of a template: its role, and what stands before, between and after the text's parts."""

    role: str
    around: tuple[str, ...]

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> "_Around":
        """Take a template's message apart at the marks."""
        return cls(message["role"], tuple(message["content"].replace(_MARKS[1], _MARKS[0]).split(_MARKS[0])))

    def read(self, message: Message) -> tuple[str, ...] | None:
        """Return the parts of the text in a message, none for one without a slot; None where it is another one.

        Plain string comparison: no text, however made, takes more than linear time.
        """
        role, said = "system" if message.role == "developer" else message.role, message.text
        if role != self.role or said is None:
            return None
        before, *between, after = self.around if len(self.around) > 1 else ("", "")
        if len(self.around) == 1:
            return () if said.strip() == self.around[0].strip() else None
        if not (said.startswith(before) and said.endswith(after) and len(said) >= len(before) + len(after)):
            return None
        inside = said[len(before) : len(said) - len(after)]
        parts = tuple(inside.split(between[0])) if between and between[0] else (inside,)
        return parts if len(parts) == 1 + len(between) else None


def _two(said: str) -> tuple[str, ...] | None:
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):  # noqa: PLR2004
        return tuple(value)
    return None


def _culprit(asked: ChatRequest) -> str:
    if (asked.n or 1) != 1 or asked.logprobs:
        return "logprobs" if asked.logprobs else "n"
    given = {"tools": asked.tools, "functions": asked.functions, "response_format": asked.response_format}
    return next((name for name, value in given.items() if value), "messages")
