"""The decision rule: whether the surrogate's answer to a text counts, and if not, why.

Router, ``/v1/explain``, file classification and report all use these two functions, so a text has the same reason
everywhere. Both are pure: `certificate_reasons` depends on the version alone, `decide` on the request as well.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.segments import thresholds_of
from tracer_serve.types import Bools, Floats, Ints, Labels

Mode = Literal["observe", "canary", "enforce"]

CERTIFIED = "certified"
"""The one reason with which the surrogate answers."""
DEFERRED_REASONS = (
    *("no_version", "no_certificate", "too_long", "out_of_scope", "class_not_certified", "segment_not_certified"),
    *("protected_label", "no_score", "below_threshold", "gate_closed", "form_not_certified", "form_disagrees"),
    *("observe", "canary", "burst_disagreed", "unfillable_schema", "policy_failed"),
)
"""Every reason with which a text is deferred."""
_DTYPE = "<U21"  # the longest reason, segment_not_certified


def certificate_reasons(
    certificate: Certificate,
    classes: Labels,
    *,
    score: Floats,
    top: Ints,
    too_long: Bools,
    in_scope: Bools,
    open_: Bools,
    vetoed: Bools,
    segment: Labels | None = None,
) -> Labels:
    """Return why the certificate lets the surrogate answer each of n rows or not, shape (n,).

    Parameters
    ----------
    classes : the labels that `top` indexes, shape (k,)
    score : on the policy's path, shape (n,); rows whose score is not finite are never answered
    top : the most probable class, shape (n,)
    too_long : rows longer than what was calibrated, or read only in part, shape (n,)
    in_scope : rows that the scope guard lets pass, shape (n,)
    open_ : rows whose predicted class the class floor lets pass, shape (n,)
    vetoed : rows that may carry a protected label other than the predicted class, shape (n,)
    segment : segment of each text, shape (n,), where the certificate has segments

    Returns
    -------
    ``certified``, ``no_certificate``, ``too_long``, ``out_of_scope``, ``class_not_certified``,
    ``segment_not_certified``, ``protected_label``, ``no_score`` or ``below_threshold``.

    Examples
    --------
    >>> found = Certificate(True, "certified", 0.9, 0.05, "strict", 100, 90, 88, 0.91, threshold=0.3, coverage=0.9)
    >>> every, none = np.ones(3, bool), np.zeros(3, bool)
    >>> rows = dict(top=np.zeros(3, int), too_long=none, in_scope=every, open_=every, vetoed=none)
    >>> certificate_reasons(found, np.array(["a"]), score=np.array([0.5, 0.1, np.nan]), **rows).tolist()
    ['certified', 'below_threshold', 'no_score']
    """
    if not certificate.certified:
        return np.full(len(score), "no_certificate", _DTYPE)
    threshold = thresholds_of(certificate, classes, top, segment)
    handled = accepts(score, threshold) & ~too_long & in_scope & open_ & ~vetoed
    if handled.all():
        return np.full(len(score), CERTIFIED, _DTYPE)
    shut = "segment_not_certified" if certificate.segments else "class_not_certified"
    reasons = np.select(
        [handled, too_long, ~in_scope, ~open_, threshold == np.inf, vetoed, ~np.isfinite(score)],
        [CERTIFIED, "too_long", "out_of_scope", "class_not_certified", shut, "protected_label", "no_score"],
        "below_threshold",
    )
    return reasons.astype(_DTYPE)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What decides on one request beside the version: gate and rollout. The defaults let every certified answer count.

    Parameters
    ----------
    gate_closed : whether something voids the version's certificate
    mode : ``observe`` lets no certified answer count, ``canary`` those of a share of the users, ``enforce`` all
    in_canary : whether the request belongs to that share
    form_certified : whether the certificate covers the form of the call (see `forms`)
    form_agrees : whether the audits of that form are as they should be
    """

    gate_closed: bool = False
    mode: Mode = "enforce"
    in_canary: bool = True
    form_certified: bool = True
    form_agrees: bool = True

    @property
    def withheld(self) -> str | None:
        """Why no certified answer counts for this request; None if they do."""
        if self.gate_closed:
            return "gate_closed"
        if not self.form_certified:
            return "form_not_certified"
        if not self.form_agrees:
            return "form_disagrees"
        if self.mode == "observe":
            return "observe"
        return "canary" if self.mode == "canary" and not self.in_canary else None


def decide(reason: str, conditions: Conditions, *, in_burst: bool = False) -> str:
    """Return why a request's text is answered by the surrogate (`CERTIFIED`) or not (any other reason).

    Parameters
    ----------
    reason : the version's reason, as in `certificate_reasons`
    in_burst : whether the teacher disagreed about a text of the same template (`serving.burst_breaker`)

    Examples
    --------
    >>> decide("certified", Conditions(mode="observe")), decide("out_of_scope", Conditions(mode="observe"))
    ('observe', 'out_of_scope')
    >>> decide("certified", Conditions())
    'certified'
    """
    if reason != CERTIFIED:
        return reason
    return conditions.withheld or ("burst_disagreed" if in_burst else CERTIFIED)
