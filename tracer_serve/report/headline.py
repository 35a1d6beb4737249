"""What a reader wants first: certified or not and why, coverage, agreement, what is saved."""

from typing import Any

from tracer_serve.load import Task
from tracer_serve.records import Certificate
from tracer_serve.report.seen import Seen


def basis_of(seen: Seen) -> dict[str, Any]:
    """Say on which rows every number of the report stands."""
    how = (
        "held-out rows: the served model has never seen them"
        if seen.certificate.mode == "strict"
        else "out-of-fold rows: each was scored by models fitted without it (cross-fitted)"
    )
    return {"mode": seen.certificate.mode, "rows": len(seen), "sentence": f"{len(seen):,} {how}."}


def headline_of(task: Task, seen: Seen) -> dict[str, Any]:
    """Return the verdict in words and the few numbers that carry it."""
    found = seen.certificate
    answered = int(seen.handled.sum())
    agreements = int((seen.handled & seen.agreed).sum())
    coverage = answered / max(1, len(seen))
    return {
        "certified": found.certified,
        "reason": found.reason,
        "verdict": verdict_of(found),
        "coverage": coverage,
        "handled": answered,
        "agreements": agreements,
        "agreement": agreements / answered if answered else None,
        "lower_bound": found.lower_bound if found.certified else None,
        "teacher_calls_saved": coverage * (1.0 - task.spec.traces.audit_rate),
        "audit_rate": task.spec.traces.audit_rate,
    }


def verdict_of(found: Certificate) -> str:
    """Return the certificate's finding as one sentence."""
    promise = f"at least {_percent(found.alpha)} of the answers agree with the teacher"
    more = f" About {found.rows_needed:,} more calibration traces would change that." if found.rows_needed else ""
    if found.certified:
        return (
            f"{_percent(found.coverage)} of the traffic is answered without the teacher, and {promise}"
            f" (the certificate is wrong with probability at most {_percent(found.delta)})."
        )
    return {
        "insufficient": f"Nothing is certified: there are too few rows to show that {promise}.{more}",
        "disagreement": f"Nothing is certified: the surrogate disagrees with the teacher too often"
        f" even where it is safest ({found.agreements:,} of {found.n:,} agree).{more}",
        "coverage": f"Nothing is served: only {_percent(found.coverage)} of the traffic could be certified,"
        " which is less than gate.min_coverage.",
        "ineligible": "Nothing is certified: no row has a finite score and passes the guards.",
    }.get(found.reason, f"Nothing is certified: {found.reason}.{more}")


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
