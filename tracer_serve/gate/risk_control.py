"""Conformal risk control: bound the expected share of wrong answers over all requests.

What is offered: over calibration draw and traffic, on average at most the share 1 - alpha of *all* requests gets an
answer that the teacher would not have given; what is deferred counts as agreeing. The loss of a row, accepted and
wrong, can only fall as the threshold rises, and the rows are exchangeable: the two conditions of conformal risk
control (Angelopoulos et al., arXiv 2208.02814). A single version may exceed the share.

What is not offered: P(disagree | handled) <= 1 - alpha on average, by the loosest threshold whose sum over accepted
rows of (disagreement - (1 - alpha)) stays below -alpha (a linear expectation constraint, arXiv 2512.01556). Its loss is
not monotone: a stricter threshold also drops correct answers, so the threshold with the test row swapped in bounds
nothing. Where agreement is below alpha at every threshold the rule still accepts in lucky draws: with uninformative
scores, true agreement .90 and alpha .95 it handles in a fifth of the draws, and 10 % of what it handles disagrees. Even
with calibrated informative scores it reaches 5.5 % at 200 rows. A slow test shows this.
"""

import math

import numpy as np

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.group_sample import group_facts, numbered, one_each
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats


def certify_overall(rows: CalibrationRows, settings: GateSettings) -> Certificate:
    """Return the loosest threshold at which E[share of requests handled with a disagreement] <= 1 - alpha.

    Parameters
    ----------
    rows : of a policy with a single stage
    settings : its `alpha` is the required share of requests that are deferred or agree, on average

    Returns
    -------
    A certificate with ``guarantee="overall"``. Its ``delta`` is NaN, as the promise is an average, and its
    ``lower_bound`` is that of the share deferred or agreeing, not of the agreement among the handled.

    Examples
    --------
    >>> rows = CalibrationRows(np.arange(39.0), np.arange(39) > 0)
    >>> found = certify_overall(rows, GateSettings(alpha=0.95))
    >>> found.certified, found.threshold, found.lower_bound
    (True, -inf, 0.95)
    """
    scores, agreed, n, alpha = rows.scores, rows.agreed, len(rows), settings.alpha
    usable = np.isfinite(rows.guarded)
    group = numbered(rows.groups, n)
    single = one_each(group, settings.seed)
    views = (np.ones(n, bool), single)
    loosest = [_loosest(np.sort(scores[usable & ~agreed & view]), int(view.sum()), alpha) for view in views]
    accepted = usable & accepts(scores, max(loosest))
    coverage = float(accepted.mean()) if n else 0.0
    certified = bool(accepted.any()) and coverage >= settings.min_coverage
    short = max(0, _fewest(alpha) - int(single.sum()))
    return Certificate(
        certified=certified,
        reason="certified" if certified else "insufficient" if short else _reason(usable, accepted),
        alpha=alpha,
        delta=math.nan,
        mode=settings.mode,
        basis=settings.basis,
        rows=n,
        n=int(accepted.sum()),
        agreements=int((accepted & agreed).sum()),
        lower_bound=alpha if certified else 0.0,
        threshold=max(loosest) if certified else math.inf,
        coverage=coverage,
        rows_needed=math.ceil(short * n / int(single.sum())) if n else short,
        coverage_unguarded=float(accepts(scores, max(loosest)).mean()) if n else 0.0,
        guarantee="overall",
        **group_facts(group),
    )


def _fewest(alpha: float) -> int:
    """Return the least number of rows that allows one more wrong row."""
    return math.ceil(1.0 / (1.0 - alpha) - 1e-9) - 1


def _loosest(wrong: Floats, rows: int, alpha: float) -> float:
    """Return the loosest threshold for some rows, given the scores of those that would be wrong, ascending.

    It is infinite if there are too few rows, because the next request may be wrong as well.
    """
    allowed = math.floor((1.0 - alpha) * (rows + 1) + 1e-9) - 1
    if allowed < 0:
        return math.inf
    return float(np.nextafter(wrong[-1 - allowed], np.inf)) if len(wrong) > allowed else -math.inf


def _reason(usable: Bools, accepted: Bools) -> str:
    return "coverage" if accepted.any() else "disagreement" if usable.any() else "ineligible"
