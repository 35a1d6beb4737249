"""The shape that a caller wants its answer in: a bare label, a JSON object, or a call of a function."""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal

from tracer_serve.components.teachers._labels import LabelSet
from tracer_serve.errors import TeacherError
from tracer_serve.server.chat.asked_format import format_of
from tracer_serve.server.chat.fill_schema import UnfillableError, fill, label_path

_LABEL = "label"


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape that a label fits into, and out of which a label is read.

    Parameters
    ----------
    kind : where in the message the answer goes
    labels : the task's label set; empty in an open task that has none yet
    function : name of the function to call
    schema : JSON Schema of the object; None for a bare label, and for an object of the caller's wording
    when_handled : values of fields beside the label, see `fill_schema.fill`
    """

    kind: Literal["text", "json", "tool", "function"]
    labels: AbstractSet[str]
    function: str = ""
    schema: dict[str, Any] | None = None
    when_handled: Mapping[str, Any] = field(default_factory=dict)

    def problem(self, label: str) -> str | None:
        """Return why a label cannot be given in this shape; None where it can."""
        if self.schema is None:
            return None
        if label not in self.labels:
            return f"the label {label!r} is not in the enum that was asked for"
        try:
            fill(self.schema, self.labels, label, self.when_handled)
        except UnfillableError as error:
            return str(error)
        return None

    def message(self, label: str, call_id: str, score: float | None = None) -> tuple[dict[str, Any], str]:
        """Return the assistant's message that says a label, and its finish reason.

        Parameters
        ----------
        call_id : unique, names the call of a tool
        score : the acceptor's, for fields that want it
        """
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if self.kind == "text":
            return message | {"content": label}, "stop"
        plain = {_LABEL: label}
        value = plain if self.schema is None else fill(self.schema, self.labels, label, self.when_handled, score)
        # escaped to ASCII: a schema's default may hold half a surrogate pair
        written = json.dumps(value)
        if self.kind == "json":
            return message | {"content": written}, "stop"
        called = {"name": self.function, "arguments": written}
        if self.kind == "function":
            return message | {"function_call": called}, "function_call"
        return message | {"tool_calls": [{"id": call_id, "type": "function", "function": called}]}, "tool_calls"

    def read(self, message: Mapping[str, Any], labels: LabelSet) -> str:
        """Return the label that an LLM's message says in this shape.

        Raises
        ------
        TeacherError
            ``unknown_label`` where it says none.
        """
        said = self._said(message)
        if self.schema is None:
            return labels.parse(said)
        try:
            value = json.loads(said)
            for name in label_path(self.schema, self.labels):
                value = value[name]
        except (ValueError, LookupError, TypeError, RecursionError, UnfillableError):
            value = None
        if not isinstance(value, str):
            raise TeacherError("the answer has no label where the schema has it", reason="unknown_label", answer=said)
        return labels.parse(value)

    def _said(self, message: Mapping[str, Any]) -> str:
        try:
            if self.kind == "tool":
                return str(message["tool_calls"][0]["function"]["arguments"])
            if self.kind == "function":
                return str(message["function_call"]["arguments"])
            return str(message["content"] or "")
        except (LookupError, TypeError):
            raise TeacherError("the answer calls no function", reason="unknown_label") from None


def shape_of(options: Mapping[str, Any], labels: AbstractSet[str], when_handled: Mapping[str, Any]) -> Shape:
    """Return the shape that a call's options ask for.

    Parameters
    ----------
    options : fields of the body, as in `forms.form.Form.option_values`
    labels : the task's label set
    when_handled : values of fields beside the label

    Raises
    ------
    UnfillableError
        Where there is no place for a label in it. That other fields need values too is for `Shape.problem` to say.
    """
    shape = _shape(options, labels, when_handled)
    if shape.schema is not None:
        label_path(shape.schema, labels)
    return shape


def _shape(options: Mapping[str, Any], labels: AbstractSet[str], when_handled: Mapping[str, Any]) -> Shape:
    tools, functions = _list(options, "tools"), _list(options, "functions")
    if tools and options.get("tool_choice") != "none":
        offered = [tool.get("function") for tool in _dicts(tools) if tool.get("type") == "function"]
        choice = options.get("tool_choice")
        named = choice.get("function") if isinstance(choice, dict) else None
        name, schema = _called(_dicts(offered), named, len(tools))
        return Shape("tool", labels, name, schema, when_handled)
    if functions and options.get("function_call") != "none":
        choice = options.get("function_call")
        named = choice if isinstance(choice, dict) else None
        name, schema = _called(_dicts(functions), named, len(functions))
        return Shape("function", labels, name, schema, when_handled)
    wanted = format_of(options)
    if wanted.choices is not None and set(map(str, wanted.choices)) != labels:
        raise UnfillableError("its choices are not the task's labels")
    return Shape("json" if wanted.json else "text", labels, schema=wanted.schema, when_handled=when_handled)


def _list(options: Mapping[str, Any], name: str) -> list[Any]:
    value = options.get(name) or []
    if not isinstance(value, list):
        raise UnfillableError(f"{name} is no list")
    return value


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _called(functions: Sequence[Mapping[str, Any]], named: Any, offered: int) -> tuple[str, dict[str, Any]]:
    """Return name and schema of the function that has to be called: the one that is chosen, or the only one."""
    if isinstance(named, dict):
        chosen = [function for function in functions if function.get("name") == named.get("name")]
    else:
        chosen = list(functions) if offered == 1 else []
    if len(chosen) != 1:
        raise UnfillableError("the model may choose which of its functions to call")
    schema = chosen[0].get("parameters")
    if not isinstance(schema, dict):
        raise UnfillableError("the function takes no parameters")
    return str(chosen[0].get("name")), schema
