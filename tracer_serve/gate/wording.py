"""Describe certificates in sentences and percentages."""

import math

from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.certificate import Basis, Certificate
from tracer_serve.gate.recall import low_recalls

_BASIS: dict[Basis, str] = {
    "proved": "This is proved for independent messages like the calibration rows, with repeats counted once.",
    "empirical": "This rate is measured in simulations, not proved: the model that serves was refitted after the test.",
}


def bound_of(found: Certificate) -> float | None:
    """Return the certified lower bound of the agreement among the handled; None if there is none.

    With ``guarantee="overall"`` there is none, because that bounds a share of all requests.
    """
    return found.lower_bound if found.certified and found.guarantee == "probability" else None


def title_of(found: Certificate) -> str:
    """Return the headline of a certificate."""
    if found.certified:
        title = f"{percent(found.coverage)} of the traffic no longer needs the teacher"
        if bound_of(found) is None:
            return title
        return f"{title}, and at least {_percent(found.alpha)} of these answers are certified to agree with it"
    return {
        "insufficient": "Too few traces to certify anything yet",
        "disagreement": "The surrogate is not safe enough yet",
        "recall": "A protected label would be lost too often",
        "coverage": "Too little could be certified to be worth serving",
    }.get(found.reason, "Nothing is certified")


def verdict_of(found: Certificate) -> str:
    """Return the verdict of a certificate in one or two sentences."""
    if found.certified:
        return f"{promise_of(found)} {recall_warning(found)}".rstrip()
    more = f" Agreement has dropped since the oldest {found.outdated:,} rows." if found.outdated else ""
    if found.diagnosis is not None:
        more += f" {found.diagnosis.sentence}"
    elif found.rows_needed:
        more += f" About {found.rows_needed:,} more calibration traces would change that."
    return {
        "insufficient": f"Everything goes to the teacher: there are too few rows to show {_lacking(found)}.{more}",
        "disagreement": f"Everything goes to the teacher: {_failed(found)}.{more}",
        "recall": f"Everything goes to the teacher: {_lost(found)}.{more}",
        "coverage": f"Everything goes to the teacher: only {percent(found.coverage)} of the traffic could be"
        f" certified, less than gate.min_coverage.{more}",
        "ineligible": "Everything goes to the teacher: no row has a finite score and passes the guards.",
    }.get(found.reason, f"Everything goes to the teacher: {found.reason}.{more}")


def promise_of(found: Certificate) -> str:
    """Return what a certificate promises."""
    if found.guarantee == "overall":
        return (
            f"On average over versions, at least {_percent(found.alpha)} of all requests are deferred or get the"
            f" teacher's answer; a single version may lie below. {_BASIS[found.basis]}{_changed(found)}"
        )
    each = " for each certified label" if found.per_class else " in each certified segment" * bool(found.segments)
    kept = "".join(
        f" Of the requests that the teacher labels {label.label!r} at least {_percent(label.required)} are deferred or"
        " get that label."
        for label in found.protected
    )
    return (
        f"Of the answers given without the teacher at least {_percent(found.alpha)} agree with it{each}.{kept} A"
        f" version that does not keep {'all of ' * bool(kept)}this is certified with probability at most"
        f" {_percent(found.delta)}{' per label' * found.per_class}. {_BASIS[found.basis]}{_changed(found)}"
    )


def _changed(found: Certificate) -> str:
    """Return what became of former labels; empty if there are none."""
    return f" Former labels in the rows: {'; '.join(found.label_changes)}." if found.label_changes else ""


def recall_warning(found: Certificate) -> str:
    """Return a warning about teacher labels with a low recall; empty if there are none."""
    if not (low := low_recalls(found)):
        return ""
    worst, others = low[0], len(low) - 1
    more = f"; {others} other label{'s' * (others > 1)} also fare{'s' * (others == 1)} badly" if others else ""
    return (
        f"Warning: of {worst.rows:,} calibration rows that the teacher labels {worst.label!r},"
        f" {worst.handled - worst.right:,} are answered with another label (recall {percent(worst.recall)}){more}."
        " gate.protect promises a label's recall."
    )


def _lacking(found: Certificate) -> str:
    """Return the claim that lacks rows: the agreement, or the recall of a protected label."""
    level = found.delta / found.rivals
    short = [label for label in found.protected if label.rows < n_min(label.required, level)]
    if not short:
        return f"an agreement of {_percent(found.alpha)}"
    return " or ".join(f"a recall of {_percent(x.required)} for {x.label!r} ({x.rows:,} rows)" for x in short)


def _lost(found: Certificate) -> str:
    """Return which protected label fared worst at the first test."""
    if not found.protected:
        return "in each segment a protected label is lost too often"
    worst = min(found.protected, key=lambda label: label.lower_bound - label.required)
    return (
        f"where the surrogate is safest {worst.kept:,} of {worst.rows:,} rows of {worst.label!r} are deferred or get"
        f" that label, too few to show a recall of {_percent(worst.required)}"
    )


def _failed(found: Certificate) -> str:
    """Return why the first test failed; a certificate per label or on average has no first test."""
    often = "the surrogate disagrees with it too often, even where it is safest"
    if not found.n:
        return often
    seen = f"{found.agreements:,} of {found.n:,} agree"
    if found.agreements < found.alpha * found.n:
        return f"{often} ({seen}, {_percent(found.alpha)} are required)"
    return f"where the surrogate is safest {seen}, too few to show that at least {_percent(found.alpha)} do"


def _percent(value: float) -> str:
    """Return alpha or delta in percent, unrounded: 99.95 % is not 100 %."""
    return f"{100 * value:.6g} %"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share in percent, a dash for None; a share below 1 is never rounded to 100 %.

    Examples
    --------
    >>> percent(0.9531), percent(0.9998), percent(None)
    ('95.3 %', '99.9 %', '-')
    """
    if value is None:
        return "-"
    return f"{min(100 * value, 100 - 10**-digits) if value < 1 else 100 * value:.{digits}f} %"


def at_least(value: float | None) -> str:
    """Format a lower bound in percent, rounded down, so that it remains a bound; a dash for None.

    Examples
    --------
    >>> at_least(0.9537), at_least(0.95), at_least(None)
    ('95.3 %', '95.0 %', '-')
    """
    return "-" if value is None else f"{math.floor(1000 * value + 1e-6) / 10:.1f} %"
