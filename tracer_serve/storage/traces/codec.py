"""Encode texts, pairs and JSON values as strings that every database can store."""

import json
import re
from typing import Any

from pydantic_core import to_json

from tracer_serve.types import Text

_NEEDS_JSON = re.compile("[\x00\ud800-\udfff]")
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":")
).encode  # `json.dumps` would create an encoder per call


def pack(value: Text) -> str:
    r"""Encode a text or a pair as a string that every database can store; `unpack` decodes it.

    Ordinary text is stored unchanged. A pair becomes a JSON list. A text with NUL (which Postgres rejects) or lone
    surrogates (which UTF-8 cannot encode), or one that looks packed already, becomes a JSON string. Equal values give
    equal strings. Two surrogates that form one character are decoded as that character.

    Examples
    --------
    >>> pack("hello"), pack(("a", "b")), pack("nul \x00")
    ('hello', '["a", "b"]', '"nul \\u0000"')
    """
    if isinstance(value, str):
        text = str(value)  # numpy's strings are a subclass that not every driver knows
        if not text.startswith(('"', "[")) and _is_plain(text):
            return text
        # the same result, and much faster for a vector's few thousand characters
        return to_json(text).decode() if text.isascii() and "\x7f" not in text else json.dumps(text)
    packed = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if _NEEDS_JSON.search(packed) else packed


def _is_plain(text: str) -> bool:
    return "\0" not in text if text.isascii() else not _NEEDS_JSON.search(text)  # faster than the search


def unpack(stored: str) -> Text:
    """Decode a string that `pack` returned."""
    if not stored.startswith(('"', "[")):
        return stored
    value = json.loads(stored)
    return value if isinstance(value, str) else (value[0], value[1])


def pack_some(value: str | None) -> str | None:
    """Pack an optional text."""
    return None if value is None else pack(value)


def unpack_text(stored: str) -> str:
    """Unpack a text that is not a pair."""
    return json.loads(stored) if stored.startswith('"') else stored


def unpack_some(stored: str | None) -> str | None:
    """Unpack an optional text."""
    return None if stored is None else unpack_text(stored)


def dump(value: Any) -> str:
    """Encode a value as canonical JSON in ASCII: equal values give equal strings."""
    return "{}" if value == {} else _encode(value)


def parse(stored: str) -> Any:
    """Decode a JSON text; the empty object, the most frequent one, without the parser."""
    return {} if stored == "{}" else json.loads(stored)
