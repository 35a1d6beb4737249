"""Convert values to plain JSON: no numpy types, no infinities, six significant digits."""

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

SCHEMA = 1
"""Schema version of report.json; only reports of the same schema are compared."""


def plain(value: Any) -> Any:
    """Return a value as JSON proper: non-finite numbers become None, floats keep six significant digits.

    Examples
    --------
    >>> plain({"a": np.float32(0.1), "b": (np.inf, np.bool_(True))})
    {'a': 0.1, 'b': [None, True]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a report cannot hold a {type(value).__name__}")


def joined(text: str | tuple[str, str], limit: int = 600) -> str:
    """Return an input as one text of at most `limit` characters; the texts of a pair are joined by an arrow."""
    whole = text if isinstance(text, str) else " ⟷ ".join(text)
    return whole if len(whole) <= limit else whole[: limit - 1] + "…"
