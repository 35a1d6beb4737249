"""Find the field of an answer that holds the label: the one ``enum`` of the format that a call asks for."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DEPTH = 8
_FEWEST = 2  # values of an enum that is a choice


@dataclass(frozen=True, slots=True)
class AnswerEnum:
    """An ``enum`` in an answer's schema.

    Parameters
    ----------
    path : names of the fields that lead to it; empty if the whole answer is one of the values
    labels : its values, in the schema's order
    """

    path: tuple[str, ...]
    labels: tuple[str, ...]


def answer_enum(options: Mapping[str, Any]) -> AnswerEnum | None:
    """Return the only enum of the format that a call's options ask for; None if there is none, or several.

    Reads ``response_format``, the only tool or function, and what vLLM, SGLang and Ollama take beside them.

    Examples
    --------
    >>> schema = {"type": "object", "properties": {"mood": {"enum": ["sad", "glad"]}, "why": {"type": "string"}}}
    >>> answer_enum({"guided_json": schema})
    AnswerEnum(path=('mood',), labels=('sad', 'glad'))
    """
    structured = _mapping(options.get("structured_outputs"))
    for choices in (options.get("guided_choice"), structured.get("choice")):
        if (labels := _labels(choices)) is not None:
            return AnswerEnum((), labels)
    found = [enum for schema in _schemas(options, structured) for enum in _enums(schema, schema, (), 0)]
    return found[0] if len(found) == 1 else None


def answer_properties(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the top-level properties of the answer that a call's options ask for; empty without a schema.

    Examples
    --------
    >>> answer_properties({"guided_json": {"type": "object", "properties": {"mood": {}, "urgent": {}}}})
    ('mood', 'urgent')
    """
    structured = _mapping(options.get("structured_outputs"))
    found = (_mapping(schema.get("properties")) for schema in _schemas(options, structured))
    return next((tuple(properties) for properties in found if properties), ())


def _schemas(options: Mapping[str, Any], structured: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    wanted = _mapping(_mapping(options.get("response_format")).get("json_schema")).get("schema")
    tools, functions = options.get("tools"), options.get("functions")
    tool = _mapping(_mapping(tools[0]).get("function")) if isinstance(tools, list) and len(tools) == 1 else {}
    function = _mapping(functions[0]) if isinstance(functions, list) and len(functions) == 1 else {}
    given = (wanted, tool.get("parameters"), function.get("parameters"), options.get("guided_json"))
    for schema in (*given, options.get("format"), structured.get("json")):
        if found := _mapping(schema):
            yield found


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, which vLLM also takes as a string of JSON; an empty one for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def _enums(schema: Any, root: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Iterator[AnswerEnum]:
    inner = _mapping(schema)
    if depth > _DEPTH:
        return
    if isinstance(reference := inner.get("$ref"), str):
        group, _, name = reference.removeprefix("#/").rpartition("/")
        yield from _enums(_mapping(root.get(group)).get(name), root, path, depth + 1)
        return
    if (labels := _labels(inner.get("enum"))) is not None:
        yield AnswerEnum(path, labels)
    for name, value in _mapping(inner.get("properties")).items():
        yield from _enums(value, root, (*path, name), depth + 1)
    for word in ("allOf", "anyOf", "oneOf"):
        branches = inner.get(word)
        for branch in branches if isinstance(branches, list) else ():
            yield from _enums(branch, root, path, depth + 1)


def _labels(values: Any) -> tuple[str, ...] | None:
    """Return the values of an enum of strings, null left out; None if it is no choice among strings."""
    if not isinstance(values, list):
        return None
    labels = tuple(value for value in values if value is not None)
    return labels if len(labels) >= _FEWEST and all(isinstance(label, str) for label in labels) else None
