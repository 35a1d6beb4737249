"""The certificate: an exact-binomial fixed-sequence test (gate.md, sections 1 to 3).

With probability at least 1 - delta over the calibration draw, P(agree | accepted) >= alpha on traffic like the
calibration rows. Each threshold's p-value is exact given its counts, and the order of the tests is fixed without the
calibration labels, so a wrong certificate needs the first false null of the walk to be rejected: at most delta
(fixed-sequence testing: Angelopoulos et al., Learn then Test, arXiv 2110.01052).
"""

import math
from typing import Any, Literal

import numpy as np

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.fixed_sequence import accepts, path
from tracer_serve.gate.near_duplicates import numbered, one_each
from tracer_serve.gate.pilot import draw_pilot, predict_agreement
from tracer_serve.gate.walk_result import Counted, WalkResult
from tracer_serve.types import Bools, Floats, Ints

Spend = Literal["per_version", "series"]


def spent_delta(delta: float, spend: Spend = "per_version", index: int = 1) -> float:
    """Return what the `index`-th certificate of a task may spend of delta.

    ``series`` spends 6 delta / (pi^2 index^2), which sums to delta over all certificates there will ever be;
    ``per_version`` spends delta each time.

    Examples
    --------
    >>> round(spent_delta(0.05, "series", 1), 4)
    0.0304
    """
    return delta if spend == "per_version" else 6.0 * delta / (math.pi * index) ** 2


def certify(
    scores: Floats,
    agreed: Bools,
    predicted: Floats | None = None,
    *,
    alpha: float,
    delta: float,
    mode: str,
    min_coverage: float = 0.0,
    eligible: Bools | None = None,
    groups: Ints | None = None,
    spend: Spend = "per_version",
    index: int = 1,
    seed: int = 0,
) -> Certificate:
    """Certify the loosest threshold that a walk from the most promising one reaches.

    Parameters
    ----------
    scores : acceptor scores of n calibration rows, higher is safer, shape (n,); all equal: accept all or nothing. Or
        (s, n) for a cascade, stages in the order they are asked, on one path (`gate.sequence`)
    agreed : whether the answer equals the teacher's label, same shape
    predicted : predicted P(agree), same shape; only decides where the walk starts. It must be a function of the score
        that was fitted on other rows: bad predictions cost coverage only, predictions that have seen any of these
        labels cost the guarantee. Without it 5 % of the rows are spent on it (`gate.pilot`) and leave the certificate
    alpha, delta : required agreement; probability that the certificate is wrong
    mode : how the scores were made, ``strict`` or ``cross_fit``; only with ``strict`` does the theorem hold as stated
    min_coverage : least certified coverage worth a deployment
    eligible : rows that the scope guard and the class floor let pass, shape (n,); the others are never accepted
    groups : what belongs together, as bursts of near-duplicates do, shape (n,): each group counts as one row where
        that is the stricter view (`gate.finding.Counted`); without it each row is its own
    spend, index : see `spent_delta`
    seed : of the draws of the pilot and of one row per group

    Returns
    -------
    The certificate. Its ``lower_bound`` holds together with it, at one and the same delta: where the walk passed its
    last threshold it goes on there to larger and larger alpha, which is the Clopper-Pearson bound; where it stopped
    earlier, alpha is all that is proved, although the pointwise bound at the threshold may be a little above.

    Raises
    ------
    ValueError
        Where alpha, delta or the shapes make no sense.

    Examples
    --------
    >>> agreed = np.ones(59, bool)
    >>> found = certify(np.zeros(59), agreed, np.ones(59), alpha=0.95, delta=0.05, mode="strict")
    >>> found.certified, found.threshold, round(found.lower_bound, 4)
    (True, -inf, 0.9505)
    """
    scores, agreed = np.asarray(scores), np.asarray(agreed, dtype=bool)
    _check(scores, agreed, predicted, alpha, delta)
    delta = spent_delta(delta, spend, index)
    guarded = scores if eligible is None else np.where(eligible, scores, np.nan)
    group = numbered(groups, scores.shape[-1])
    pilot, expected = _predictions(guarded, agreed, predicted, group, alpha=alpha, delta=delta, seed=seed)
    keep = ~pilot
    single = one_each(group[keep], seed)
    counted = Counted.of(guarded[..., keep], agreed[..., keep], expected[..., keep], single, alpha=alpha, delta=delta)
    stated = {"alpha": alpha, "delta": delta, "mode": mode, "spend": spend, "index": index}
    stated |= {"pilot": int(pilot.sum()), "distinct": int(single.sum())}
    return _certificate(counted.finding(), path(scores[..., keep]), min_coverage, stated)


def _certificate(found: WalkResult, unguarded: Floats, min_coverage: float, stated: dict[str, Any]) -> Certificate:
    """Deploy what passed, unless it is too little; `unguarded` are all rows' scores on the path, shape (rows,)."""
    rows = len(unguarded)
    coverage = found.n / rows if found.passed else 0.0
    certified = found.passed and coverage >= min_coverage
    return Certificate(
        certified=certified,
        reason="coverage" if found.passed and not certified else found.reason,
        rows=rows,
        n=found.n,
        agreements=found.agreements,
        lower_bound=found.lower_bound,
        threshold=found.threshold if certified else math.inf,
        coverage=coverage,
        rows_needed=found.rows_needed,
        walk=found.walk,
        coverage_unguarded=float(accepts(unguarded, found.threshold).mean()) if rows else 0.0,
        **stated,
    )


def _check(scores: Floats, agreed: Bools, predicted: Floats | None, alpha: float, delta: float) -> None:
    if not (0.0 < alpha < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(f"alpha {alpha} and delta {delta} must lie strictly between 0 and 1")
    shapes = [np.shape(part) for part in (scores, agreed, predicted) if part is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"scores, agreed and predicted differ in shape: {shapes}")


def _predictions(
    scores: Floats, agreed: Bools, predicted: Floats | None, group: Ints, *, alpha: float, delta: float, seed: int
) -> tuple[Bools, Floats]:
    """Return the pilot rows (n,) and each stage's predicted agreement in the shape of the scores."""
    if predicted is not None:
        return np.zeros(scores.shape[-1], bool), np.asarray(predicted)
    pilot = draw_pilot(scores, group, alpha, delta, seed)
    stages = zip(np.atleast_2d(scores), np.atleast_2d(agreed), strict=True)
    return pilot, np.stack([predict_agreement(s, a, pilot) for s, a in stages]).reshape(scores.shape)
