"""What a reader wants first: certified or not and why, coverage, agreement, what is saved."""

from typing import TYPE_CHECKING, Any

from tracer_serve.certificate import Certificate
from tracer_serve.load import Task
from tracer_serve.report.words import percent

if TYPE_CHECKING:  # it brings the fit, which a server that only says what it serves has no use for
    from tracer_serve.report.seen import Seen


def basis_of(seen: "Seen", alarm: str | None = None) -> dict[str, Any]:
    """Say on which rows every number of the report stands; after an alarm, that they came after it."""
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


def headline_of(task: Task, seen: "Seen") -> dict[str, Any]:
    """Return the verdict in words and the few numbers that carry it, all of them the certificate's own."""
    found, audit_rate = seen.certificate, task.spec.traces.audit_share
    return {
        "certified": found.certified,
        "reason": found.reason,
        "title": title_of(found),
        "verdict": verdict_of(found),
        "coverage": found.handled_share,
        "rows": found.rows,
        "handled": found.n if found.certified else 0,
        "agreements": found.agreements if found.certified else 0,
        "agreement": found.agreements / found.n if found.certified and found.n else None,
        "lower_bound": bound_of(found),
        "teacher_calls_saved": found.handled_share * (1.0 - audit_rate),
        "audit_rate": audit_rate,
    }


def bound_of(found: Certificate) -> float | None:
    """Return the certified lower bound of the agreement among the handled, None where there is none.

    With ``guarantee="overall"`` there is none: what is bounded there is a share of all requests.
    """
    return found.lower_bound if found.certified and found.guarantee == "probability" else None


def title_of(found: Certificate) -> str:
    """Return the finding as a headline."""
    if found.certified:
        return f"{percent(found.coverage)} of the traffic no longer needs the teacher"
    return {
        "insufficient": "Too few traces to certify anything yet",
        "disagreement": "The surrogate is not safe enough yet",
        "coverage": "Too little could be certified to be worth serving",
    }.get(found.reason, "Nothing is certified")


def verdict_of(found: Certificate) -> str:
    """Return the certificate's finding in a sentence or two."""
    if found.certified:
        return promise_of(found)
    more = f" About {found.rows_needed:,} more calibration traces would change that." if found.rows_needed else ""
    if found.diagnosis is not None:
        more = f" {found.diagnosis.sentence}"
    return {
        "insufficient": "Everything goes to the teacher: there are too few rows to show an agreement of"
        f" {_percent(found.alpha)}.{more}",
        "disagreement": f"Everything goes to the teacher: {_failed(found)}.{more}",
        "coverage": f"Everything goes to the teacher: only {percent(found.coverage)} of the traffic could be"
        f" certified, less than gate.min_coverage.{more}",
        "ineligible": "Everything goes to the teacher: no row has a finite score and passes the guards.",
    }.get(found.reason, f"Everything goes to the teacher: {found.reason}.{more}")


def promise_of(found: Certificate) -> str:
    """Return what a certificate promises."""
    if found.guarantee == "overall":
        return (
            f"On average over versions, at least {_percent(found.alpha)} of all requests are deferred or get the"
            " teacher's answer; a single version may lie below."
        )
    each = " for each certified label" if found.per_class else ""
    return (
        f"Of the answers given without the teacher at least {_percent(found.alpha)} agree with it{each}. The"
        f" probability that this certificate is wrong is at most {_percent(found.delta)}{each and ' per label'}."
    )


def _failed(found: Certificate) -> str:
    """Return what the first test saw; a certificate per label, or on average, has no first one."""
    often = "the surrogate disagrees with it too often, even where it is safest"
    if not found.n:
        return often
    seen = f"{found.agreements:,} of {found.n:,} agree"
    if found.agreements < found.alpha * found.n:
        return f"{often} ({seen}, {_percent(found.alpha)} are required)"
    return f"where the surrogate is safest {seen}, too few to show that at least {_percent(found.alpha)} do"


def _percent(value: float) -> str:
    """Return what the spec says, alpha or delta, unrounded: 99.95 % is not 100 %."""
    return f"{100 * value:.6g} %"
