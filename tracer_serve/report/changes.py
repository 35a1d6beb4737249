"""Changes since the previous version: labels, coverage and bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

_SURE = 0.05


def changes_of(report: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare this report's data, already plain, with the earlier ones.

    ``moved`` lists labels whose handled share differs significantly: Fisher's exact test with Holm's correction for the
    number of labels. The versions share most of their rows, which makes the test conservative.
    """
    wanted = ("certified", "coverage", "agreement", "lower_bound")
    history = [
        {"created": old["created"], "rows": old["basis"]["rows"]} | {name: old["headline"].get(name) for name in wanted}
        for old in (*earlier, report)
    ]
    if not earlier:
        return {"history": history, "since": None, "moved": [], "new_labels": [], "gone_labels": [], "headline": None}
    old, new = earlier[-1], report
    before, after = ({row["label"]: row for row in r["classes"]["rows"] if row["rows"]} for r in (old, new))
    return {
        "history": history,
        "since": old["created"],
        "headline": {
            "coverage": _difference(old["headline"]["coverage"], new["headline"]["coverage"]),
            "rows": new["basis"]["rows"] - old["basis"]["rows"],
            "policy": [old["policy"], new["policy"]],
            "teacher": [old["basis"].get("teacher"), new["basis"]["teacher"]],
            "alpha": [old["certificate"]["alpha"], new["certificate"]["alpha"]],
        },
        "moved": _moved(before, after),
        "new_labels": sorted(after.keys() - before.keys()),
        "gone_labels": sorted(before.keys() - after.keys()),
    }


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    both = sorted(before.keys() & after.keys())
    p = np.array([_p(before[label], after[label]) for label in both])
    order = np.argsort(p, kind="stable")
    holm = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))) if len(p) else p
    moved = [
        {
            "label": both[i],
            "before": before[both[i]]["handled_share"],
            "after": after[both[i]]["handled_share"],
            "change": after[both[i]]["handled_share"] - before[both[i]]["handled_share"],
            "p": min(1.0, float(adjusted)),
        }
        for i, adjusted in zip(order, holm, strict=True)
        if adjusted <= _SURE
    ]
    return sorted(moved, key=lambda row: -abs(row["change"]))


def _p(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    table = [[row["handled"], row["rows"] - row["handled"]] for row in (before, after)]
    return float(fisher_exact(table).pvalue)
