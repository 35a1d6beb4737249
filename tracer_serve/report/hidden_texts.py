"""Hide the texts of a report (``report.texts: hidden``), so that it can be shown to an audience."""

from collections.abc import Mapping
from typing import Any

_TEXTS = frozenset({"text", "input", "example", "contradicted_by"})
_NAMED_BY_WORDS = {"ngram": "phrase", "cluster": "cluster"}


def hide_texts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain report without texts: lengths in their place, and numbers for slices that are named by words.

    Examples
    --------
    >>> hide_texts({"cards": [{"text": "call me", "teacher": "ham"}]})
    {'cards': [{'text': '(7 characters)', 'teacher': 'ham'}]}
    """
    found: dict[str, Any] = _hidden(report)
    for event in ("deferred", "disagreed") if "slices" in found else ():
        for i, row in enumerate(found["slices"][event]["slices"]):
            row["examples"] = [_length(text) for text in row["examples"]]
            if row["kind"] in _NAMED_BY_WORDS:
                row["name"] = f"{_NAMED_BY_WORDS[row['kind']]} {i + 1}"
    return found


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _texts(item) if key in _TEXTS else _hidden(item) for key, item in value.items()}
    return [_hidden(item) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Any:
    """Return lengths for one text, a pair, or a column of texts."""
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value if value is None else _length(str(value))


def _length(text: str) -> str:
    return f"({len(text):,} characters)"
