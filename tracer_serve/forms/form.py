"""The form of an LLM call: its prompt, model and options, and the slot in which the text varies."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from tracer_serve.types import Text

_EXCERPT = 40  # characters of a prompt that a description shows


@dataclass(frozen=True)
class Turn:
    """A message before the slot: a system message, an example, an earlier turn of the conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Form:
    """Everything of a call but its text. Two calls with the same form ask the same question about two texts.

    Parameters
    ----------
    api : ``chat`` for ``/v1/chat/completions``, ``responses``, or ``messages`` for Anthropic's
    model : as the caller names it
    turns : all messages before the last one
    around : what surrounds the slots in the last user message: prefix and suffix; of a pair also what is between.
        ``("", "")`` makes the whole message the text
    options : the request's other fields that shape the answer, as canonical JSON (see `calls.parse`): schema, tools,
        ``guided_json``, temperature
    media : kinds of content in it that are no text, such as ``image_url``

    Examples
    --------
    >>> form = Form("chat", "gpt-4.1-mini", around=("Tweet: ", " Label:"))
    >>> split(form, "Tweet: what a day Label:")
    'what a day'
    >>> form.fingerprint == form.wrapped("Tweet: ", "").fingerprint
    False
    """

    api: str
    model: str
    turns: tuple[Turn, ...] = ()
    around: tuple[str, ...] = ("", "")
    options: str = "{}"
    media: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits, the same in every process and release that reads calls alike."""
        return hashlib.sha256(self.as_json().encode("ascii")).hexdigest()[:16]

    def wrapped(self, *around: str) -> Self:
        """Return this form with a prefix and a suffix around the slot; of a pair also what is between."""
        return replace(self, around=around)

    @property
    def system(self) -> tuple[str, ...]:
        """The system and developer messages."""
        return tuple(turn.content for turn in self.turns if turn.role == "system")

    @property
    def earlier(self) -> tuple[Turn, ...]:
        """Examples and earlier turns: every message before the last that is no system message."""
        return tuple(turn for turn in self.turns if turn.role != "system")

    @property
    def option_values(self) -> dict[str, Any]:
        """The options as they were sent."""
        options: dict[str, Any] = json.loads(self.options)
        return options

    def as_json(self) -> str:
        """Return it as JSON in ASCII, which `of_json` reads back."""
        return json.dumps(
            {
                "api": self.api,
                "model": self.model,
                "turns": [[turn.role, turn.content] for turn in self.turns],
                "around": self.around,
                "options": self.options,
                "media": self.media,
            }
        )

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Read what `as_json` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            facts: Mapping[str, Any] = json.loads(text)
            turns = tuple(Turn(str(role), str(content)) for role, content in facts["turns"])
            around, media = tuple(map(str, facts["around"])), tuple(map(str, facts["media"]))
            return cls(str(facts["api"]), str(facts["model"]), turns, around, str(facts["options"]), media)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"this is no form: {error!r}") from None

    def describe(self, redact: Callable[[str], str] | None = None) -> str:
        """Return one line for people: what there is and how long it is, never the text.

        Parameters
        ----------
        redact : applied to excerpts of the prompt; None shows no excerpts
        """
        parts = [f"{self.api}, model {self.model[:64]!r}"]
        parts += [f"system message ({_size(said, redact)})" for said in self.system]
        if self.earlier:
            parts.append(f"{len(self.earlier)} earlier turns")
        places = ("before", *["between"] * (len(self.around) - 2), "after")
        around = [(place, said) for place, said in zip(places, self.around, strict=True) if said]
        parts += [f"{place} the text: {_size(said, redact)}" for place, said in around]
        parts += [f"with {name}" for name in self.option_values]
        parts += [f"content of type {kind}" for kind in self.media]
        return "; ".join(parts)


def split(form: Form, message: str) -> Text | None:
    """Return the text in the slot of a last user message: a string, or two of a pair; None if the wrapper differs.

    Plain string comparison: no message, however made, takes more than linear time. A pair whose texts contain what is
    between them is ambiguous, and no pair.
    """
    before, *between, after = form.around
    fits = message.startswith(before) and message.endswith(after) and len(message) >= len(before) + len(after)
    if not fits:
        return None
    inside = message[len(before) : len(message) - len(after)]
    if not between:
        return inside
    parts = inside.split(between[0]) if between[0] else []
    return (parts[0], parts[1]) if len(between) == 1 and len(parts) == 2 else None  # noqa: PLR2004


def _size(said: str, redact: Callable[[str], str] | None) -> str:
    size = f"{len(said):,} characters"
    if redact is None:
        return size
    shown = " ".join(redact(said).split())
    return f"{size}: {shown[:_EXCERPT]!r}" + ("..." if len(shown) > _EXCERPT else "")
