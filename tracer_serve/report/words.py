"""What reports, dashboard and terminal call things: reasons for which a text is handled or not, shares, bounds."""

import math

SHORT = {
    "out_of_scope": "outside the scope guard",
    "class_not_certified": "its label has no certificate",
    "no_score": "nothing can be said",
}
"""Reasons of `REASONS` in a few words, those that need no further cause."""
REASONS = {
    "certified": "answered under the certificate",
    "out_of_scope": "unlike anything seen: the scope guard keeps it for the teacher",
    "class_not_certified": "the label it would get has no certificate of its own",
    "below_threshold": "its score is under the certified threshold",
    "no_score": "nothing could be said about it",
    "no_certificate": "nothing is certified in this version, so everything goes to the teacher",
}
"""Reasons as in `Verdict`, in words."""
BRIEF = SHORT | {
    "certified": "answered under the certificate",
    "below_threshold": "score under the threshold",
    "no_certificate": "nothing is certified yet",
    "no_version": "no version yet",
    "gate_closed": "the gate is closed",
    "observe": "mode observe",
    "canary": "outside the canary share",
    "policy_failed": "the model failed on the text",
    "teacher_down": "the teacher is down",
}
"""Reasons as in `Decision` in a few words."""


def percent(value: float | None) -> str:
    """Return a share in percent, a dash where there is none; less than all is never rounded to all.

    Examples
    --------
    >>> percent(0.9531), percent(0.9998), percent(None)
    ('95.3 %', '99.9 %', '-')
    """
    if value is None:
        return "-"
    return f"{min(100 * value, 99.9) if value < 1 else 100 * value:.1f} %"


def at_least(value: float | None) -> str:
    """Return a lower bound in percent, rounded down, so that it stays one; a dash where there is none.

    Examples
    --------
    >>> at_least(0.9537), at_least(0.95), at_least(None)
    ('95.3 %', '95.0 %', '-')
    """
    return "-" if value is None else f"{math.floor(1000 * value + 1e-6) / 10:.1f} %"
