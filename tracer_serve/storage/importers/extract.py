"""Extract the text and the label from strings, message lists, content parts, completions and JSON answers."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from tracer_serve.storage.importers.items import RefusedError
from tracer_serve.types import Text

LABEL_NAMES = (
    "teacher", "teacher_label", "teacher_output", "label", "intent", "category", "answer", "output",
    "entailment_judgment",
)  # fmt: skip
_CONVERSATION = (
    "conversation_id", "conversationId", "session_id", "sessionId", "thread_id", "threadId",
)  # fmt: skip
_PAIR = 2
_SAYING = ("message", "function_call", "text", "output_text")
_FENCED = re.compile(r"```(?:json)?\s*(?P<inside>.*?)\s*```", re.DOTALL)
"""A code block around JSON, as many models write it."""


def first(record: Mapping[str, Any], *names: str) -> Any:
    """Return the first of the named values that is present and not null."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, parsed where it is JSON in a string; an empty one for anything else."""
    value = unquoted(value)
    return value if isinstance(value, Mapping) else {}


def group_of(record: Mapping[str, Any]) -> Any:
    """Return the group of a record: the one that it names, else its conversation; None if it has neither.

    Examples
    --------
    >>> group_of({"metadata": {"group": "order-mails"}}), group_of({"sessionId": "s1"}), group_of({})
    ('order-mails', 's1', None)
    """
    request, extra = mapping(first(record, "request", "body")), mapping(record.get("extra"))
    places = [record, request, mapping(request.get("body"))]
    places += [mapping(place.get("metadata")) for place in (*places, extra)]
    found = (first(place, *names) for names in (("group",), _CONVERSATION) for place in places)
    return next((group for group in found if isinstance(group, str | int) and group != ""), None)


def text_of(value: Any) -> Text:
    """Return the text, or the pair, in a prompt: the last user message.

    Raises
    ------
    RefusedError
        If there is none.
    """
    inside = unquoted(value)
    if not isinstance(value, str) or _is_chat(inside):  # otherwise the text itself is JSON
        value = inside
    if isinstance(value, dict):
        nested = next((value[key] for key in ("messages", "content", "text", "input", "prompt") if key in value), None)
        return text_of(nested)
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return _last_user(value)
    if isinstance(value, list | tuple):
        return _pair(value)
    return _said(value, "text")


def require_pair(text: Text, pair: bool) -> None:
    """Check that an input is a pair, or a single text.

    Raises
    ------
    RefusedError
        If it is the other of the two.
    """
    if pair != isinstance(text, tuple):
        has, wants = ("one text", "a pair") if pair else ("a pair", "one text")
        raise RefusedError(f"has {has}, the task wants {wants} (`input: {'pair' if pair else 'text'}`)")


def _is_chat(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("messages"), list) or "role" in value
    return isinstance(value, list) and all(isinstance(part, dict) and "role" in part for part in value)


def _pair(value: list[Any] | tuple[Any, ...]) -> tuple[str, str]:
    if len(value) != _PAIR:
        raise RefusedError(f"the text is a list of {len(value)}; a pair has two")
    return _said(value[0], "first text"), _said(value[1], "second text")


def _said(value: Any, what: str) -> str:
    if value is None:
        raise RefusedError(f"has no {what}")
    if not isinstance(value, str):
        raise RefusedError(f"the {what} is a {type(value).__name__}, not a string")
    if not value.strip():
        raise RefusedError(f"the {what} is empty")
    return value


def _last_user(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        kind = message.get("type", "message")  # items of the Responses API that are no messages have no role
        if message.get("role", "user" if kind == "message" else kind) in ("user", "human"):
            return _said(content_of(message), "text")
    raise RefusedError("no message is from the user")


def content_of(message: dict[str, Any]) -> str | None:
    """Return the text of a chat message, from OpenAI's or OpenTelemetry's parts; for a tool call its arguments."""
    parts = message.get("content", message.get("parts"))
    if isinstance(parts, list):
        found = [part.get("text", part.get("content")) for part in parts if isinstance(part, dict)]
        parts = "".join(part for part in found if isinstance(part, str)) or None
    if isinstance(parts, str):
        return parts
    calls = message.get("tool_calls") or [message.get("function_call")]
    function = calls[0].get("function", calls[0]) if isinstance(calls[0], dict) else {}
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else None


def label_of(value: Any) -> str:
    """Return the label in an answer: a string, a number, a message, a completion, or a JSON object that holds one.

    Raises
    ------
    RefusedError
        If there is none, or more than one value could be the label.

    Examples
    --------
    >>> label_of('{"intent": "card_lost", "confidence": 0.9}'), label_of(True)
    ('card_lost', 'true')
    """
    value = answer_of(value)
    if isinstance(value, str):
        if not value.strip():
            raise RefusedError("the label is empty")
        return value.strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: a missing value of a table
        raise RefusedError("has no label")
    if isinstance(value, bool):
        return json.dumps(value)  # as the model wrote it
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        named = [value[name] for name in LABEL_NAMES if name in value]
        if named or len(value) == 1:
            return label_of(named[0] if named else next(iter(value.values())))
        fields = ", ".join(map(repr, value))
        raise RefusedError(f"no label among the answer's fields {fields}. Name it: --label-field NAME")
    raise RefusedError(f"the label is a {type(value).__name__}, not a string")


def answer_of(value: Any) -> Any:
    """Return what a model answered: the content of a completion, a message or a list of them, with JSON parsed."""
    fenced = _FENCED.fullmatch(value.strip()) if isinstance(value, str) else None
    value = unquoted(fenced["inside"] if fenced else value)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        said = [item for item in value if item.get("type", "message") in _SAYING]  # a reasoning item says no label
        return answer_of((said or value)[-1])
    return _inside(value) if isinstance(value, dict) else value


def _inside(value: dict[str, Any]) -> Any:
    """Return the answer in a completion, a response, or a message; any other object is the answer."""
    if isinstance(value.get("choices"), list):
        first = value["choices"][0] if value["choices"] else None
        return answer_of(first.get("message", first.get("text")) if isinstance(first, dict) else None)
    if isinstance(value.get("output"), list):  # the Responses API
        return answer_of(value["output"])
    if value.get("type") == "function_call" and "arguments" in value:
        return answer_of(value["arguments"])
    if "role" in value or "parts" in value or "tool_calls" in value or value.get("type") == "message":
        return answer_of(content_of(value))
    return value


def at_path(value: Any, path: str) -> Any:
    """Return the value at a path of field names, through nested objects and JSON in strings.

    Raises
    ------
    RefusedError
        If it leads nowhere.

    Examples
    --------
    >>> at_path({"result": '{"is_spam": true}'}, "result.is_spam")
    True
    """
    found = value
    for name in path.split("."):
        inside = unquoted(found)
        if not isinstance(inside, dict) or name not in inside:
            has = ", ".join(map(repr, list(inside)[:12])) if isinstance(inside, dict) else type(inside).__name__
            raise RefusedError(f"has no label: no field {path!r}; at {name!r} there is {has or 'nothing'}")
        found = inside[name]
    return found


def unquoted(value: Any) -> Any:
    """Return the object or list in a string of JSON, as in exports to CSV; otherwise the value itself."""
    if isinstance(value, str) and value.lstrip()[:2] in _JSON_STARTS:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if isinstance(found, dict) or (isinstance(found, list) and found):
            return found
    return value


_JSON_STARTS = frozenset({'{"', '["', "[{", "{\n", "[\n", "{ ", "[ "})
