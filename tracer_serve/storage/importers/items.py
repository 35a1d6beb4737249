"""The records that importers exchange: raw traces, labelled texts, refusals, read options."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from tracer_serve.config.fields import AnswerFields
from tracer_serve.forms.slot import Slot
from tracer_serve.types import Text

Format = Literal[
    "auto", "jsonl", "json", "csv", "tsv", "parquet",
    "plain", "messages", "completions", "batch", "langfuse", "langsmith", "litellm", "otel",
]  # fmt: skip
"""Either the container of a file or the format of its records; the other of the two is detected."""
FORMATS: tuple[str, ...] = get_args(Format)
CONTAINERS: tuple[str, ...] = FORMATS[1:6]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One labelled text of a file.

    Parameters
    ----------
    line : line of a text file, row of a Parquet file, or element of a JSON list, from 1
    teacher : the model that gave the label, where the file names it
    ts : when, where the file says
    group : rows that are not independent share a group
    unwrapped : whether `ReadOptions.wrapper` was removed from the text
    """

    line: int
    text: Text
    label: str
    teacher: str | None = None
    ts: datetime | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    user: str | None = None
    group: str | None = None
    unwrapped: bool = False


@dataclass(frozen=True, slots=True)
class RawTrace:
    """The parts of a record that make a trace, before validation.

    Parameters
    ----------
    text : the text itself, or the messages of the request
    label : the label itself, or the model's whole answer
    options : further fields of the request, such as ``response_format``, where the log has them
    """

    text: Any
    label: Any
    teacher: Any = None
    when: Any = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    cost: Any = None
    user: Any = None
    group: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that is not a trace, and the reason."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class RefusedError(Exception):
    """Raised inside the importer for a record that is not a valid trace; the message is the reason."""


class SkippedError(Exception):
    """Raised inside the importer for a record of another kind, such as a span that called no model."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file.

    Parameters
    ----------
    fmt : container or record format, ``auto`` detects both
    labels : the closed label set; empty: any label
    pair : whether inputs must be pairs (True), must not be (False), or may be either (None)
    text_field : name of the field with the text, or of the two fields of a pair, where it has no usual name
    label_field : name of the field with the label; ``result.is_spam`` leads into nested objects and JSON answers
    requests : the input file of an OpenAI batch, whose output file holds no texts
    keep_wrapper : keep what all texts of the file begin and end with
    wrapper : what to remove from both ends of each text; see `wrapper.with_wrapper`
    fields : the fields of the task's answers, which are then read as a whole
    """

    fmt: Format = "auto"
    labels: tuple[str, ...] = ()
    pair: bool | None = None
    text_field: str | tuple[str, str] | None = None
    label_field: str | None = None
    requests: Path | None = None
    keep_wrapper: bool = False
    wrapper: Slot | None = None
    fields: AnswerFields | None = None

    def __post_init__(self) -> None:
        if self.fmt not in FORMATS:
            raise ValueError(f"fmt={self.fmt!r} is not one of {', '.join(FORMATS)}")

    def closed(self, label: str) -> str:
        """Return the label of the closed set that matches, ignoring case where only one does.

        Raises
        ------
        RefusedError
            If none matches.
        """
        if not self.labels or label in self.labels:
            return label
        alike = [one for one in self.labels if one.casefold() == label.casefold()]
        if len(alike) == 1:
            return alike[0]
        near = difflib.get_close_matches(label, self.labels, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f", which begins {', '.join(self.labels[:3])}"
        raise RefusedError(f"label {label[:80]!r} is not in the task's label set{hint}")


Record = dict[str, Any]
