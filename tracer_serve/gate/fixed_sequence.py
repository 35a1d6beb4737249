"""Fixed-sequence testing: thresholds and their order, fixed before any calibration label is read (gate.md, section 2).

Scores are float arrays of shape (n,), higher is safer, or (s, n) for a cascade of s stages: all stages' scores lie on
one path, and at threshold t a row is answered by the first stage whose score is at least t.
"""

from dataclasses import dataclass

import numpy as np

from tracer_serve.gate.binomial import critical_counts, n_min, p_values
from tracer_serve.gate.certificate import Step
from tracer_serve.types import Bools, Floats, Ints

GRID = 200


def accepts(scores: Floats, threshold: float | Floats) -> Bools:
    """Return which scores are accepted: finite and at least the threshold; never NaN or inf, even at -inf."""
    return np.isfinite(scores) & (scores >= threshold)


def path(scores: Floats) -> Floats:
    """Return the largest finite score of each row over the stages, shape (n,); NaN if there is none."""
    stages = np.atleast_2d(scores)
    best = np.where(np.isfinite(stages), stages, -np.inf).max(axis=0)
    on_path: Floats = np.where(np.isfinite(best), best, np.nan)
    return on_path


def threshold_grid(reference: Floats) -> Floats:
    """Return the thresholds that accept 1/200 ... 199/200 of the finite reference scores, strictest first, -inf last.

    Equal thresholds, from ties or from few rows, are one grid point. A threshold lies just above the largest score
    it rejects: the rows above that order statistic are then i.i.d. given its value, so that the p-values stay exact
    where the reference rows are the calibration rows themselves. It is representable in the reference's dtype.
    """
    finite = np.sort(reference[np.isfinite(reference)], axis=None)[::-1]
    accepted = np.unique(np.arange(1, GRID) * len(finite) // GRID)
    rejected = np.unique(finite[accepted])[::-1] if len(finite) else finite
    below_top = rejected[rejected < finite[0]] if len(finite) else rejected  # nothing lies above the largest
    return np.append(np.nextafter(below_top, np.inf).astype(np.float64), -np.inf)


def cascade_grid(scores: Floats) -> Floats:
    """Return the thresholds of `threshold_grid` for scores of shape (n,) or (s, n), on the path of a cascade.

    At -inf the first stage answers everything. Where many rows share the smallest score of the path, as behind a last
    stage that gives every row the same one, this score is a threshold too: there the later stages still answer. It is
    an atom of the scores' distribution, not the place of one row, so that its p-value stays exact.
    """
    reference = path(scores)
    grid, finite = threshold_grid(reference), reference[np.isfinite(reference)]
    if np.ndim(scores) == 1 or not len(finite):
        return grid
    least = finite.min()
    if np.count_nonzero(finite == least) <= max(1, len(finite) // GRID):
        return grid
    return np.insert(grid, -1, least)


@dataclass(frozen=True, slots=True)
class ThresholdCounts:
    """Sums over the accepted rows at each threshold of a grid; built once, used for any value per row.

    Parameters
    ----------
    size : number of thresholds
    enter : index of the first threshold at which a row and stage answers, shape (s, n); `size` for never
    leave : index of the first threshold at which an earlier stage has taken the row over, at least `enter`
    """

    size: int
    enter: Ints
    leave: Ints

    @classmethod
    def of(cls, scores: Floats, grid: Floats) -> "ThresholdCounts":
        """Place the rows of scores (n,) or (s, n) on a grid, strictest first."""
        scores = np.atleast_2d(scores)
        enter = np.where(np.isfinite(scores), np.searchsorted(-grid, -scores, side="left"), len(grid))
        earlier = np.minimum.accumulate(enter, axis=0)
        first = np.full_like(enter[:1], len(grid))
        return cls(len(grid), enter, np.maximum(enter, np.concatenate([first, earlier[:-1]])))

    def sums(self, values: Floats | Bools) -> Floats:
        """Return the sum of the values (n,) or (s, n) over what is accepted at each threshold, shape (size,)."""
        weights = np.broadcast_to(np.atleast_2d(values), self.enter.shape).ravel()
        change = np.bincount(self.enter.ravel(), weights, self.size + 1)
        change -= np.bincount(self.leave.ravel(), weights, self.size + 1)
        total: Floats = np.cumsum(change[: self.size])
        return total

    def counts(self, values: Bools) -> Ints:
        """Return `sums` of booleans as whole numbers."""
        return np.rint(self.sums(values)).astype(np.int64)


def power(n: Ints, predicted: Floats, alpha: float, delta: float) -> Floats:
    """Return the predicted probability of passing with n rows at the predicted agreement; 0 if n < n_min."""
    probability = p_values(critical_counts(n, alpha, delta), n, np.clip(predicted, 0.0, 1.0))
    return np.where(n >= n_min(alpha, delta), probability, 0.0)


def walk(grid: Floats, n: Ints, k: Ints, p: Floats, *, start: int, delta: float) -> tuple[Step, ...]:
    """Test from `start` towards looser thresholds until one fails; return the steps, including the failed one.

    Parameters
    ----------
    grid, n, k, p : thresholds, accepted rows, agreements among them, and p-values, shape (g,) each
    """
    failed = np.flatnonzero(p[start:] > delta)
    stop = start + int(failed[0]) + 1 if len(failed) else len(p)
    return tuple(Step(float(grid[i]), int(n[i]), int(k[i]), float(p[i])) for i in range(start, stop))
