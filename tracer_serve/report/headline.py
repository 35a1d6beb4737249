"""Headline of a report: certified or not and why, coverage, agreement, savings."""

from typing import Any

from tracer_serve.config.load import Task
from tracer_serve.gate.wording import bound_of, promise_of, recall_warning, title_of, verdict_of
from tracer_serve.report.calibration_view import CalibrationView


def basis_of(seen: CalibrationView, alarm: str | None = None) -> dict[str, Any]:
    """Describe the rows behind every number of the report, and the alarm after which they came."""
    pilot = seen.certificate.pilot
    how = (
        "held-out calibration rows, which the served model has never seen"
        if seen.certificate.mode == "strict"
        else "out-of-fold calibration rows, each scored by models fitted without it (cross-fitted)"
    )
    spent = f" The certificate leaves out {pilot:,} of them, on which its first test was chosen." if pilot else ""
    since = (
        ""
        if alarm is None
        else f" All came after the alarm of {alarm[:16].replace('T', ' ')} UTC; older ones only train."
    )
    return {"mode": seen.certificate.mode, "rows": len(seen), "sentence": f"{len(seen):,} {how}.{spent}{since}"}


def headline_of(task: Task, seen: CalibrationView) -> dict[str, Any]:
    """Return the verdict in words and its main numbers, all from the certificate."""
    found, audit_rate = seen.certificate, task.spec.traces.audit_share
    return {
        "certified": found.certified,
        "reason": found.reason,
        "basis": found.basis,
        "title": title_of(found),
        "verdict": verdict_of(found),
        "promise": promise_of(found) if found.certified else None,
        "warning": recall_warning(found) or None,
        "coverage": found.handled_share,
        "rows": found.rows,
        "handled": found.n if found.certified else 0,
        "agreements": found.agreements if found.certified else 0,
        "agreement": found.agreements / found.n if found.certified and found.n else None,
        "lower_bound": bound_of(found),
        "teacher_calls_saved": found.handled_share * (1.0 - audit_rate),
        "audit_rate": audit_rate,
        "lowest_recall": found.recalls[0] if found.certified else None,
    }
