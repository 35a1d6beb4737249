"""Any text, pair or JSON value as a string that every database can hold."""

import json
import re
from typing import Any

from pydantic_core import to_json

from tracer_serve.types import Text

_NEEDS_JSON = re.compile("[\x00\ud800-\udfff]")
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode  # made once: `json.dumps` makes one per call


def pack(value: Text) -> str:
    r"""Return a string that every database can hold, and that `unpack` turns back.

    Ordinary text is stored as it is. A pair becomes a JSON list; a text with NUL (which Postgres refuses) or lone
    surrogates (which are no UTF-8), or one that looks packed already, becomes a JSON string. Equal values are equal
    strings. Two surrogates that form one character come back as that character.

    Examples
    --------
    >>> pack("hello"), pack(("a", "b")), pack("nul \x00")
    ('hello', '["a", "b"]', '"nul \\u0000"')
    """
    if isinstance(value, str):
        text = str(value)  # numpy's strings are a subclass that not every driver knows
        if not text.startswith(('"', "[")) and _is_plain(text):
            return text
        # the same, of a vector's few thousand characters in a fraction of the time
        return to_json(text).decode() if text.isascii() and "\x7f" not in text else json.dumps(text)
    packed = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if _NEEDS_JSON.search(packed) else packed


def _is_plain(text: str) -> bool:
    return "\0" not in text if text.isascii() else not _NEEDS_JSON.search(text)  # to search takes longer than to ask


def unpack(stored: str) -> Text:
    """Return what `pack` was given."""
    if not stored.startswith(('"', "[")):
        return stored
    value = json.loads(stored)
    return value if isinstance(value, str) else (value[0], value[1])


def pack_some(value: str | None) -> str | None:
    """Pack a text that may be missing."""
    return None if value is None else pack(value)


def unpack_text(stored: str) -> str:
    """Unpack what is no pair."""
    return json.loads(stored) if stored.startswith('"') else stored


def unpack_some(stored: str | None) -> str | None:
    """Unpack a text that may be missing."""
    return None if stored is None else unpack_text(stored)


def dump(value: Any) -> str:
    """Return the one JSON text of a value, in ASCII; equal values are equal strings."""
    return "{}" if value == {} else _encode(value)


def parse(stored: str) -> Any:
    """Return the value of a JSON text; the empty object is the common case."""
    return {} if stored == "{}" else json.loads(stored)
