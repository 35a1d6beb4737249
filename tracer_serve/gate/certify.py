"""The certificate: an exact-binomial fixed-sequence test (gate.md, sections 1 to 3).

With probability at least 1 - delta over the calibration draw, P(agree | accepted) >= alpha on traffic like the
calibration rows. Each threshold's p-value is exact given its counts, and the order of the tests is fixed without the
calibration labels, so a wrong certificate needs the first false null of the walk to be rejected: at most delta
(fixed-sequence testing: Angelopoulos et al., Learn then Test, arXiv 2110.01052).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tracer_serve.gate.bounds import lower_bounds, n_min, rows_to_pass
from tracer_serve.gate.pilot import draw_pilot, predict_agreement
from tracer_serve.gate.sequence import Tally, power, threshold_grid, walk
from tracer_serve.records import Bools, Certificate, Floats, Ints, Step

Spend = Literal["per_version", "series"]


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows apart from the calibration rows, from which grid and start are taken.

    Parameters
    ----------
    scores, predicted : as for `certify`, of m other rows
    """

    scores: Floats
    predicted: Floats


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
    reference: Reference | None = None,
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
    reference : rows for grid and start; without it the calibration rows' own scores and predictions serve
    spend, index : see `spent_delta`
    seed : of the pilot's draw

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
    if not (0.0 < alpha < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(f"alpha {alpha} and delta {delta} must lie strictly between 0 and 1")
    shapes = [np.shape(part) for part in (scores, agreed, predicted) if part is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"scores, agreed and predicted differ in shape: {shapes}")
    delta = spent_delta(delta, spend, index)
    guarded = scores if eligible is None else np.where(eligible, scores, np.nan)
    pilot, expected = _predictions(guarded, agreed, predicted, alpha=alpha, delta=delta, seed=seed)
    keep = ~pilot
    scores, guarded, agreed, expected = scores[..., keep], guarded[..., keep], agreed[..., keep], expected[..., keep]
    rows = scores.shape[-1]
    other = reference or Reference(guarded, expected)
    grid = threshold_grid(path(other.scores))
    tally = Tally.of(guarded, grid)
    n, k = tally.counts(np.ones(rows, bool)), tally.counts(agreed)
    start = _start(n, _mean_predicted(other, grid), alpha, delta)
    steps = () if start is None else walk(grid, n, k, start, alpha=alpha, delta=delta)
    finding = _finding(steps, n_acceptable=int(n[-1]), rows=rows, alpha=alpha, delta=delta)
    coverage = finding.n / rows if finding.passed else 0.0
    certified = finding.passed and coverage >= min_coverage
    unguarded = np.isfinite(path(scores)) & (path(scores) >= finding.threshold)
    return Certificate(
        certified=certified,
        reason="coverage" if finding.passed and not certified else finding.reason,
        alpha=alpha,
        delta=delta,
        mode=mode,
        rows=rows,
        n=finding.n,
        agreements=finding.agreements,
        lower_bound=finding.lower_bound,
        threshold=finding.threshold if certified else math.inf,
        coverage=coverage,
        rows_needed=finding.rows_needed,
        walk=steps,
        coverage_unguarded=float(unguarded.mean()) if rows else 0.0,
        spend=spend,
        index=index,
        pilot=int(pilot.sum()),
    )


def path(scores: Floats) -> Floats:
    """Return the largest finite score of each row over the stages, NaN where there is none, shape (n,)."""
    stages = np.atleast_2d(scores)
    best = np.where(np.isfinite(stages), stages, -np.inf).max(axis=0)
    on_path: Floats = np.where(np.isfinite(best), best, np.nan)
    return on_path


def _predictions(
    scores: Floats, agreed: Bools, predicted: Floats | None, *, alpha: float, delta: float, seed: int
) -> tuple[Bools, Floats]:
    """Return the pilot rows (n,) and each stage's predicted agreement in the shape of the scores."""
    if predicted is not None:
        return np.zeros(scores.shape[-1], bool), np.asarray(predicted)
    pilot = draw_pilot(scores, alpha, delta, seed)
    stages = zip(np.atleast_2d(scores), np.atleast_2d(agreed), strict=True)
    return pilot, np.stack([predict_agreement(s, a, pilot) for s, a in stages]).reshape(scores.shape)


def _mean_predicted(reference: Reference, grid: Floats) -> Floats:
    """Return the mean predicted agreement above each threshold, 0 where nothing is accepted."""
    tally = Tally.of(reference.scores, grid)
    count = tally.sums(np.ones(np.shape(reference.scores)[-1]))
    total = tally.sums(np.nan_to_num(reference.predicted, nan=0.0, posinf=0.0, neginf=0.0))
    return total / np.maximum(count, 1.0)


def _start(n: Ints, predicted: Floats, alpha: float, delta: float) -> int | None:
    """Return the first threshold with the highest predicted power; None where no threshold has n_min rows."""
    testable = n >= n_min(alpha, delta)
    if not testable.any():
        return None
    return int(np.argmax(np.where(testable, power(n, predicted, alpha, delta), -1.0)))


@dataclass(frozen=True, slots=True)
class _Finding:
    reason: str
    n: int = 0
    agreements: int = 0
    lower_bound: float = 0.0
    threshold: float = math.inf
    rows_needed: int = 0

    @property
    def passed(self) -> bool:
        return self.reason == "certified"


def _finding(steps: tuple[Step, ...], *, n_acceptable: int, rows: int, alpha: float, delta: float) -> _Finding:
    """Read the walk: the last threshold that passed, or why there is none and how many rows more would do."""
    if not steps:
        if rows and not n_acceptable:
            return _Finding("ineligible")
        short = n_min(alpha, delta) - n_acceptable
        return _Finding("insufficient", rows_needed=math.ceil(short * rows / n_acceptable) if n_acceptable else short)
    passed = [step for step in steps if step.p <= delta]
    last = (passed or steps)[-1]
    exact = float(lower_bounds(last.k, last.n, delta))
    if passed:
        bound = max(alpha, exact) if last is steps[-1] else alpha
        return _Finding("certified", last.n, last.k, bound, last.threshold)
    enough = rows_to_pass(last.k, last.n, alpha, delta)
    more = 0 if enough is None else math.ceil((enough - last.n) * rows / last.n)
    return _Finding("disagreement", last.n, last.k, exact, rows_needed=more)
