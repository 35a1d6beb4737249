"""Slices: groups of rows that are deferred, or on which surrogate and teacher differ, more often than the rest.

Weighted covering (Lavrac et al., 2004): take the slice with the largest excess, set its rows aside, and judge the
others on the remaining rows, so that one hard label is not repeated as its words, cluster and length. The excess is
computed from the exact lower bound of the rate. ``sure`` marks slices with an excess after Bonferroni's correction for
the number of groups; the others are hints.
"""

from typing import Any

import numpy as np

from tracer_serve.gate.binomial import exact_interval
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.intervals import CONFIDENCE
from tracer_serve.report.subgroups import Groups
from tracer_serve.types import Bools, Floats

_LISTED = 20


def slices_of(seen: CalibrationView, groups: Groups) -> dict[str, Any]:
    """Return the worst slices by deferral and by disagreement, worst first, and the number of groups tested."""
    events = {"deferred": ~seen.handled, "disagreed": ~seen.agreed}
    return {
        "groups": len(groups.name),
        "confidence": CONFIDENCE,
        **{
            name: {"rows": int(event.sum()), "rate": float(event.mean()), "slices": _worst(seen, groups, event)}
            for name, event in events.items()
        },
    }


def _worst(seen: CalibrationView, groups: Groups, event: Bools) -> list[dict[str, Any]]:
    base = float(event.mean())
    if not groups.name or base in (0.0, 1.0):
        return []
    left = np.ones(len(seen))
    alone = _excess(groups, event, left, base, 1.0)
    found: list[dict[str, Any]] = []
    for _ in range(_LISTED):
        excess = np.minimum(alone, _excess(groups, event, left, base, 1.0))
        best = int(excess.argmax())
        if excess[best] <= 0.0:
            break
        sure = bool(_excess(groups, event, left, base, len(groups.name))[best] > 0.0)
        found.append(_described(seen, groups, event, best) | {"excess": excess[best], "sure": sure})
        left[groups.member[best].indices] = 0.0
    return found


def _excess(groups: Groups, event: Bools, left: Floats, base: float, looks: float) -> Floats:
    """Return a lower bound of each group's events above the overall rate, among the remaining rows."""
    n = np.rint(groups.member @ left).astype(np.int64)
    k = np.rint(groups.member @ (left * event)).astype(np.int64)
    low, _ = exact_interval(k, n, 1.0 - (1.0 - CONFIDENCE) / looks)
    excess: Floats = n * (low - base)
    return excess


def _described(seen: CalibrationView, groups: Groups, event: Bools, group: int) -> dict[str, Any]:
    rows = groups.member[group].indices
    n, k = len(rows), int(event[rows].sum())
    low, high = exact_interval(k, n)
    hit, answered = rows[event[rows]], seen.handled[rows]
    return {
        "kind": groups.kind[group],
        "name": groups.name[group],
        "rows": n,
        "events": k,
        "rate": k / n,
        "interval": [low, high],
        "lift": k / n / float(event.mean()),
        "handled": int(answered.sum()),
        "handled_agreements": int((answered & seen.agreed[rows]).sum()),
        "examples": [seen.shown(int(i)) for i in hit[:3]],
    }
