"""Labels that changed when a new teacher relabelled the previous teacher's texts."""

from collections import Counter
from collections.abc import Mapping
from typing import Any


def migration_of(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the result of a paired migration as tables; None if there was none.

    Parameters
    ----------
    found : ``before`` and ``after`` (fingerprints), ``asked`` and ``failed`` texts, ``cost``, and ``moves``: old label,
        new label and number of texts, most frequent first

    Examples
    --------
    >>> found = {"before": "a", "after": "b", "asked": 9, "failed": 1, "cost": 0.0, "moves": [["red", "pink", 2]]}
    >>> migration_of(found)["labels"]
    [{'label': 'pink', 'left': 0, 'came': 2}, {'label': 'red', 'left': 2, 'came': 0}]
    """
    if found is None:
        return None
    left, came = Counter[str](), Counter[str]()
    for old, new, rows in found["moves"]:
        left[old] += rows
        came[new] += rows
    answered, moved = found["asked"] - found["failed"], left.total()
    return {
        "before": found["before"],
        "after": found["after"],
        "asked": found["asked"],
        "answered": answered,
        "moved": moved,
        "share": moved / answered if answered else None,
        "cost": found["cost"],
        "moves": [{"from": old, "to": new, "rows": rows} for old, new, rows in found["moves"]],
        "labels": [
            {"label": label, "left": left[label], "came": came[label]}
            for label in sorted(left | came, key=lambda name: (-left[name] - came[name], name))
        ],
    }
