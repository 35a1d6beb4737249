"""The shape that a caller wants its answer in: a bare label, a JSON object, or a call of a function."""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

from tracer_serve.server.chat.fill_schema import UnfillableError, fill
from tracer_serve.server.chat.request import ChatRequest, Function

_LABEL = "label"


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape that a label fits into.

    Parameters
    ----------
    kind : where in the message the answer goes
    labels : the task's label set
    function : name of the function to call
    schema : JSON Schema of the object; None for a bare label, and for an object of the caller's wording
    """

    kind: Literal["text", "json", "tool", "function"]
    labels: AbstractSet[str]
    function: str = ""
    schema: dict[str, Any] | None = None

    def takes(self, label: str) -> bool:
        """Whether a label fits: one that an open task's teacher has just thought of is in no caller's ``enum``."""
        return self.schema is None or label in self.labels

    def message(self, label: str, call_id: str) -> tuple[dict[str, Any], str]:
        """Return the assistant's message that says a label, and its finish reason.

        Parameters
        ----------
        call_id : unique, names the call of a tool
        """
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if self.kind == "text":
            return message | {"content": label}, "stop"
        value = {_LABEL: label} if self.schema is None else fill(self.schema, self.labels, label)
        # escaped to ASCII: a schema's default may hold half a surrogate pair
        written = json.dumps(value)
        if self.kind == "json":
            return message | {"content": written}, "stop"
        called = {"name": self.function, "arguments": written}
        if self.kind == "function":
            return message | {"function_call": called}, "function_call"
        return message | {"tool_calls": [{"id": call_id, "type": "function", "function": called}]}, "tool_calls"


def shape_of(asked: ChatRequest, labels: AbstractSet[str]) -> Shape:
    """Return the shape that a request asks for.

    Raises
    ------
    UnfillableError
        Where a label alone cannot be put in it.
    """
    if asked.tools and asked.tool_choice != "none":
        functions = [tool.function for tool in asked.tools if tool.type == "function" and tool.function]
        choice = asked.tool_choice.get("function") if isinstance(asked.tool_choice, dict) else None
        return _call("tool", functions, choice, len(asked.tools), labels)
    if asked.functions and asked.function_call != "none":
        choice = asked.function_call if isinstance(asked.function_call, dict) else None
        return _call("function", asked.functions, choice, len(asked.functions), labels)
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return Shape("text", labels)
    if wanted.type == "json_object":
        return Shape("json", labels)
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        return _checked(Shape("json", labels, schema=wanted.json_schema.schema_))
    raise UnfillableError(f"the format {wanted.type!r} is not known here")


def _call(
    kind: Literal["tool", "function"],
    functions: Sequence[Function],
    choice: Any,
    offered: int,
    labels: AbstractSet[str],
) -> Shape:
    """Take the function that has to be called: the one that is chosen, or the only one there is."""
    if isinstance(choice, dict):
        chosen = [function for function in functions if function.name == choice.get("name")]
    else:
        chosen = list(functions) if offered == 1 else []
    if len(chosen) != 1:
        raise UnfillableError("which of its functions to call is the model's choice")
    return _checked(Shape(kind, labels, chosen[0].name, chosen[0].parameters))


def _checked(shape: Shape) -> Shape:
    assert shape.schema is not None
    fill(shape.schema, shape.labels, next(iter(shape.labels), ""))
    return shape
