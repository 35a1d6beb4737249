"""What the latest requests were like: why they were deferred, how long answers took, how often the teacher failed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracer_serve.config.fields import WHOLE, values_of
from tracer_serve.report.reason_texts import BRIEF
from tracer_serve.types import Trace

LOOKED_AT = 500
"""Newest rows of the store that are looked at."""


_HELD = ("observe", "canary", "gate_closed")


def recent_of(traces: Sequence[Trace], version: int | None = None) -> dict[str, Any]:
    """Sum up rows, newest first; imported ones say nothing about the service and are left out.

    Times are per text, of computing and of the teacher: what a request waited for others in its batch is in `/metrics`.

    Parameters
    ----------
    version : the one whose answers, where mode or gate held them back, are compared with the teacher's
    """
    decided = [trace for trace in traces if trace.decision is not None]
    asked = [trace for trace in decided if trace.decision != "handled"]
    failed = Counter(str(trace.metadata["error"]) for trace in asked if "error" in trace.metadata)
    return {
        "rows": len(decided),
        "since": decided[-1].ts.isoformat(timespec="seconds") if decided else None,
        "reasons": _reasons(asked),
        "held_back": _held_back([trace for trace in asked if trace.version == version]),
        "fields": _fields(decided),
        "latency_ms": {
            kind: _quantiles([t for t in decided if t.decision == kind and "error" not in t.metadata])
            for kind in ("handled", "deferred")
        },
        "teacher": {
            "asked": len(asked),
            "failed": failed.total(),
            "error_rate": failed.total() / len(asked) if asked else None,
            "errors": dict(failed.most_common()),
        },
    }


def _reasons(asked: Sequence[Trace]) -> list[dict[str, Any]]:
    """Return why the teacher was asked, most frequent first; rows of an older server do not say."""
    counts = Counter(str(trace.metadata.get("reason", "unknown")) for trace in asked)
    return [
        {"reason": reason, "words": BRIEF.get(reason, reason.replace("_", " ")), "rows": rows}
        for reason, rows in counts.most_common()
    ]


def _fields(decided: Sequence[Trace]) -> list[dict[str, Any]]:
    """Return how often surrogate and teacher gave a field the same value, handled or not; empty without fields."""
    rows, agreed = Counter[str](), Counter[str]()
    for trace in decided:
        teacher, surrogate = values_of(trace.teacher_label or ""), values_of(trace.surrogate_label or "")
        for name in sorted(teacher.keys() & surrogate.keys() - {WHOLE}):
            rows[name] += 1
            agreed[name] += teacher[name] == surrogate[name]
    return [{"field": name, "rows": n, "agreed": agreed[name]} for name, n in rows.items()]


def _held_back(asked: Sequence[Trace]) -> dict[str, int]:
    """Return how many certified answers were held back, and on how many of them the teacher said the same."""
    held = [t for t in asked if t.metadata.get("reason") in _HELD and t.teacher_label is not None]
    return {"rows": len(held), "agreed": sum(t.surrogate_label == t.teacher_label for t in held)}


def _waited(trace: Trace) -> float:
    """Return for how many milliseconds a caller waited; an audit's answer came after the reply."""
    late = "teacher" if trace.decision == "handled" else None
    return sum(ms for stage, ms in trace.latency_ms.items() if stage != late)


def _quantiles(traces: Sequence[Trace]) -> dict[str, Any]:
    if not traces:
        return {"rows": 0, "p50": None, "p99": None}
    p50, p99 = np.quantile([_waited(trace) for trace in traces], [0.5, 0.99])
    return {"rows": len(traces), "p50": round(float(p50), 3), "p99": round(float(p99), 3)}
