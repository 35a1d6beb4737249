"""`fields`: several answers in one call, and the one label that stands for them."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tracer_serve.config.base import Frozen

WHOLE = ""
"""Name of the only value of a label without fields."""

_TRUTH = {"true": True, "false": False}


class FieldSpec(Frozen):
    """One field of the answer."""

    type: Literal["choice", "boolean", "tags", "text", "number"] = Field(
        default="choice", description="choice: one of labels. tags: any of them. text and number are not certified."
    )
    labels: tuple[str, ...] | dict[str, str] = Field(
        default=(), description="The closed set of a choice or of tags, or a map of label to description."
    )
    when_handled: Any = Field(
        default="defer",
        description="Value of a text or number in a handled answer: score (0 to 1), percent (0 to 100), null, or a"
        " constant. omit: left out if the caller does not require it. defer: calls that ask for it go"
        " to the teacher.",
    )

    @property
    def certified(self) -> bool:
        """Whether the certificate speaks of it."""
        return self.type in ("choice", "boolean", "tags")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        named = self.type in ("choice", "tags")
        if named and not self.labels:
            raise ValueError(f"a field of type {self.type} needs labels: [...]")
        if not named and self.labels:
            raise ValueError(f"labels belong to the types choice and tags, not to {self.type}")
        if any(not label.strip() for label in self.labels) or len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must not be empty or listed twice")
        if self.certified and self.when_handled != "defer":
            raise ValueError(f"when_handled belongs to the types text and number; of a {self.type} the answer is given")
        if self.type == "text" and self.when_handled in ("score", "percent"):
            raise ValueError("score and percent are numbers; give the field type: number")
        return self


@dataclass(frozen=True, slots=True)
class AnswerFields:
    """The fields of a task's answer, as a codec between an answer and its label.

    The label is the canonical JSON of the certified fields: sorted names, sorted tags, no white space. Store, gate,
    audits and monitor compare labels and look no further, so an answer agrees where all its certified fields do.

    Parameters
    ----------
    specs : by name, in the order of the YAML

    Examples
    --------
    >>> fields = AnswerFields({"tags": FieldSpec(type="tags", labels=("vip", "fraud")), "why": FieldSpec(type="text")})
    >>> fields.encode({"why": "a stolen card", "tags": ["VIP", "fraud"]})
    '{"tags":["fraud","vip"]}'
    """

    specs: Mapping[str, FieldSpec]

    def __hash__(self) -> int:
        return hash(json.dumps(self.schema()))

    @property
    def certified(self) -> tuple[str, ...]:
        """Names of the fields that the certificate speaks of."""
        return tuple(name for name, spec in self.specs.items() if spec.certified)

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of the fields of text and number."""
        return tuple(name for name, spec in self.specs.items() if not spec.certified)

    def encode(self, answer: Any) -> str:
        """Return the label of an answer.

        Parameters
        ----------
        answer : values by field; other fields are ignored, and so are case and convention of names and labels

        Raises
        ------
        ValueError
            If a certified field is missing or has no such value.
        """
        given = _named(answer, self.certified)
        found = {}
        for name in self.certified:
            if name not in given:
                raise ValueError(f"the answer has no field {name!r}; the task's fields are {self._names}")
            found[name] = _value(name, self.specs[name], given[name])
        return canonical(found)

    def parse(self, label: str) -> str:
        """Return a label that is written as any JSON in canonical form.

        Raises
        ------
        ValueError
            As in `encode`.
        """
        try:
            answer = json.loads(label)
        except (ValueError, RecursionError):
            raise ValueError(f"the answer is no JSON object with the fields {self._names}") from None
        return self.encode(answer)

    def others(self, answer: Any) -> dict[str, Any]:
        """Return what an answer says in its fields of text and number."""
        return _named(answer, self.beside)

    def columns(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer in the columns of a table; None if it does not have one for each certified field."""
        found = _named(record, self.certified)
        return found if len(found) == len(self.certified) else None

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of an answer."""
        properties = {name: _schema(spec) for name, spec in self.specs.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def listing(self) -> str:
        """Return the fields and their values in words, a line each."""
        return "\n".join(f"- {name}: {_in_words(spec)}" for name, spec in self.specs.items())

    @property
    def _names(self) -> str:
        return ", ".join(self.certified)


def canonical(values: Mapping[str, Any]) -> str:
    """Return the label of values that are spelled as the task spells them."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def values_of(label: str) -> dict[str, Any]:
    """Return the values of a label, by field; a label of a task without fields is its only value.

    Examples
    --------
    >>> values_of('{"intent":"card_lost","urgent":true}'), values_of("card_lost")
    ({'intent': 'card_lost', 'urgent': True}, {'': 'card_lost'})
    """
    if label.startswith("{"):
        try:
            found = json.loads(label)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
    return {WHOLE: label}


def label_in_words(label: str) -> str:
    """Return a label for people; the answer of a task with fields as names and values.

    Examples
    --------
    >>> label_in_words('{"intent":"card_lost","tags":["new","vip"],"urgent":true}'), label_in_words("card_lost")
    ('intent: card_lost, tags: new + vip, urgent: yes', 'card_lost')
    """
    values = values_of(label)
    return label if WHOLE in values else ", ".join(f"{name}: {_said_of(value)}" for name, value in values.items())


def _said_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (" + ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def plain_answer(
    fields: AnswerFields,
    values: Mapping[str, Any],
    others: Mapping[str, Any],
    score: float | None,
    when_handled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an answer for which no schema was given; what is deferred or omitted is left out.

    Parameters
    ----------
    values : of the certified fields
    others : the teacher's, of fields of text and number
    score : the acceptor's
    when_handled : by name of a field, instead of the task's
    """
    found = {**values, **others}
    for name in fields.beside:
        how = (when_handled or {}).get(name, fields.specs[name].when_handled)
        if name not in others and how not in ("omit", "defer"):
            found[name] = said(how, score)
    return {name: found[name] for name in fields.specs if name in found}


def said(how: Any, score: float | None) -> Any:
    """Return what a field beside the label says in a handled answer.

    Parameters
    ----------
    how : ``score`` (0 to 1), ``percent`` (0 to 100), or a constant
    score : the acceptor's; without one such fields say 0
    """
    sure = min(1.0, max(0.0, score)) if score is not None and math.isfinite(score) else 0.0
    return {"score": round(sure, 4), "percent": round(100.0 * sure, 2)}.get(how, how) if isinstance(how, str) else how


def spelled(value: str, labels: Iterable[str]) -> str | None:
    """Return the label that equals a value, ignoring case where only one does; None without one."""
    known = list(labels)
    if value in known:
        return value
    alike = [label for label in known if label.casefold() == value.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def same_name(said: str, name: str) -> bool:
    """Return whether two names are one in snake_case, camelCase or kebab-case.

    Examples
    --------
    >>> same_name("isNew", "is_new"), same_name("new", "is_new")
    (True, False)
    """
    return "".join(filter(str.isalnum, said)).casefold() == "".join(filter(str.isalnum, name)).casefold()


def _named(answer: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of some fields, by the task's names; those that an answer lacks, or has twice, are left out."""
    found: dict[str, Any] = {}
    for name in names if isinstance(answer, Mapping) else ():
        alike = [name] if name in answer else [said for said in answer if same_name(str(said), name)]
        if len(alike) == 1:
            found[name] = answer[alike[0]]
    return found


def _value(name: str, spec: FieldSpec, given: Any) -> str | bool | list[str]:
    if spec.type == "boolean":
        truth = _TRUTH.get(given.strip().casefold()) if isinstance(given, str) else given
        if not isinstance(truth, bool):
            raise ValueError(f"the field {name!r} is neither true nor false")
        return truth
    if spec.type == "tags":
        if isinstance(given, str) and given.lstrip().startswith("["):
            given = json.loads(given)  # a cell of a table
        if not isinstance(given, list | tuple):
            raise ValueError(f"the field {name!r} is no list of tags")
        return sorted({_label(name, spec, tag) for tag in given})
    return _label(name, spec, given)


def _label(name: str, spec: FieldSpec, given: Any) -> str:
    label = spelled(given, spec.labels) if isinstance(given, str) else None
    if label is None:
        # answers often repeat the text, which may not be logged
        raise ValueError(f"the field {name!r} has none of its {len(spec.labels)} labels")
    return label


def _schema(spec: FieldSpec) -> dict[str, Any]:
    if spec.type == "choice":
        return {"type": "string", "enum": list(spec.labels)}
    if spec.type == "tags":
        return {"type": "array", "items": {"type": "string", "enum": list(spec.labels)}}
    return {"type": "string" if spec.type == "text" else spec.type}


def _in_words(spec: FieldSpec) -> str:
    said = spec.labels
    listed = "; ".join(f"{label} ({said[label]})" for label in said) if isinstance(said, dict) else ", ".join(said)
    words = {
        "choice": f"one of {listed}",
        "boolean": "true or false",
        "tags": f"a list of those that fit, empty where none does: {listed}",
        "text": "a short text",
        "number": "a number",
    }
    return words[spec.type]
