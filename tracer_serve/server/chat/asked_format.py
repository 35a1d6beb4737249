"""Parse the requested output format: OpenAI's ``response_format``, and the options of vLLM, SGLang and Ollama."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tracer_serve.server.chat.schema_places import UnfillableError

_JSON = "json"


@dataclass(frozen=True, slots=True)
class AskedFormat:
    """Requested format: text, one of some choices, a JSON object, or an instance of a schema."""

    json: bool = False
    schema: dict[str, Any] | None = None
    choices: list[Any] | None = None


def format_of(options: Mapping[str, Any]) -> AskedFormat:
    """Return the format that a body's fields request.

    Raises
    ------
    UnfillableError
        If there is more than one, or one that is not known here.

    Examples
    --------
    >>> format_of({"guided_choice": ["yes", "no"]}).choices
    ['yes', 'no']
    """
    asked = [*_of_openai(options.get("response_format")), *_of_others(options)]
    if len(asked) > 1:
        raise UnfillableError("it asks for more than one format")
    return asked[0] if asked else AskedFormat()


def _of_openai(wanted: Any) -> Iterator[AskedFormat]:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return
    if kind == "json_object":
        yield AskedFormat(json=True)
        return
    inner = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        raise UnfillableError(f"the format {kind!r} is not known here")
    yield AskedFormat(json=True, schema=inner["schema"])


def _of_others(options: Mapping[str, Any]) -> Iterator[AskedFormat]:
    structured = options.get("structured_outputs") or {}
    if not isinstance(structured, dict) or set(structured) - {"json", "choice"}:
        raise UnfillableError("structured_outputs asks for what is not known here")
    for schema in (options.get("guided_json"), options.get("format"), structured.get("json")):
        if schema is not None:
            yield AskedFormat(json=True) if schema == _JSON else AskedFormat(json=True, schema=_schema(schema))
    for choices in (options.get("guided_choice"), structured.get("choice")):
        if isinstance(choices, list):
            yield AskedFormat(choices=choices)
        elif choices is not None:
            raise UnfillableError("its choices are no list")


def _schema(given: Any) -> dict[str, Any]:
    """Return a schema, which vLLM also takes as a string."""
    try:
        schema = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise UnfillableError("it asks for JSON of no schema")
    return schema
