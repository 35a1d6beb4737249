"""The structured output that an endpoint is asked for, given or found out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tracer_serve.config.fields import AnswerFields

Mode = Literal["json_schema", "json_object", "tool", "label"]
MODES: tuple[Mode, ...] = ("json_schema", "json_object", "tool", "label")
"""From the strictest to none: schema, JSON object with a schema as llama.cpp takes it, forced tool, bare label."""

_REFUSED = frozenset({400, 405, 415, 422, 501})  # statuses of an endpoint that does not know a format
_FAILED = 500  # as many self-hosted servers answer; it may also be an outage of a moment
_ENOUGH = 2
_NAME = "label"


class AnswerFormat:
    """Which structured output one endpoint takes. With ``auto`` the first calls find out, and later ones keep to it.

    A format that is refused is left out at once. One that fails with a 500 or is ignored is left out the second time,
    because one failure may have another cause. Nothing is left out unless a weaker format then gave an answer.

    Parameters
    ----------
    schema : JSON schema of the answer
    response : a mode, or ``auto``
    usable : whether an answer names a label

    Examples
    --------
    >>> found = AnswerFormat(label_schema(["no", "yes"]), "auto", usable=lambda content: True)
    >>> found.modes
    ('json_schema', 'json_object', 'tool', 'label')
    >>> found.answered("json_object", {"json_schema": 400})
    >>> found.modes
    ('json_object',)
    """

    def __init__(self, schema: Mapping[str, Any], response: str, usable: Callable[[str], bool]) -> None:
        self._schema, self.usable = dict(schema), usable
        self.modes: tuple[Mode, ...] = tuple(mode for mode in MODES if response in ("auto", mode))
        self._failures: dict[Mode, int] = {}

    def fields(self, mode: Mode) -> dict[str, Any]:
        """Return the fields of a request in a mode."""
        if mode == "json_schema":
            wanted = {"name": _NAME, "strict": True, "schema": self._schema}
            return {"response_format": {"type": "json_schema", "json_schema": wanted}}
        if mode == "json_object":
            return {"response_format": {"type": "json_object", "schema": self._schema}}
        if mode == "tool":
            function = {"name": _NAME, "parameters": self._schema}
            choice = {"type": "function", "function": {"name": _NAME}}
            return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
        return {}

    def answered(self, mode: Mode, failed: Mapping[Mode, int]) -> None:
        """Remember which mode gave a usable answer, after which others failed with which status.

        Parameters
        ----------
        failed : 0 if an answer was not in the format
        """
        for one, status in failed.items():
            self._failures[one] = self._failures.get(one, 0) + (_ENOUGH if status in _REFUSED else 1)
        left = [one for one in self.modes if self._failures.get(one, 0) < _ENOUGH] or [mode]
        # where the strictest that is left has just answered, nothing remains to be found out
        self.modes = (mode,) if left[0] == mode else tuple(left)


class ForcedTool(AnswerFormat):
    """The same for Anthropic's API, which takes tools with a schema."""

    def fields(self, mode: Mode) -> dict[str, Any]:
        """Return the fields of a request in the mode ``tool`` or ``label``."""
        if mode != "tool":
            return {}
        tool = {"name": _NAME, "description": "Give the label.", "input_schema": self._schema}
        return {"tools": [tool], "tool_choice": {"type": "tool", "name": _NAME}}


def is_refusal(status: int | None) -> bool:
    """Return whether a status may mean that the endpoint does not know the format."""
    return status in _REFUSED or status == _FAILED


def schema_of(labels: Sequence[str], fields: AnswerFields | None) -> dict[str, Any]:
    """Return the JSON schema of a task's answers."""
    return label_schema(labels) if fields is None else fields.schema()


def label_schema(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of ``{"label": one of the labels}``."""
    label = {"type": "string", "enum": list(labels)} if labels else {"type": "string"}
    return {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
