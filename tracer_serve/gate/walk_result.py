"""Walking the thresholds and reading the walk: what passed, or why nothing did."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from tracer_serve.gate.binomial import lower_bounds, n_min, p_values, rows_to_pass
from tracer_serve.gate.certificate import Step
from tracer_serve.gate.fixed_sequence import ThresholdCounts, path, power, threshold_grid, walk
from tracer_serve.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class WalkResult:
    """What a walk shows; the fields as in `Certificate`, before coverage is looked at."""

    reason: str
    walk: tuple[Step, ...] = ()
    n: int = 0
    agreements: int = 0
    lower_bound: float = 0.0
    threshold: float = math.inf
    rows_needed: int = 0

    @property
    def passed(self) -> bool:
        """Whether a threshold passed."""
        return self.reason == "certified"


@dataclass(frozen=True, slots=True)
class Counted:
    """What is accepted at each of g thresholds, strictest first, seen twice: every row, and one row per group.

    Traffic repeats itself in two ways. Where many ask the same, rows are independent and all of them count; where
    one cause sends a burst (retries, templates), only its groups are. A threshold passes if both views pass, so a
    certificate is right in either case. Without repeats the two are one.

    Parameters
    ----------
    rows : calibration rows
    grid : the thresholds, shape (g,)
    n, k : accepted rows and agreements among them, of each view, shape (2, g)
    predicted : mean predicted agreement of the accepted rows, shape (g,)
    p : p-value of "agreement is below alpha" in each view, shape (2, g)
    """

    alpha: float
    delta: float
    rows: int
    grid: Floats
    n: Ints
    k: Ints
    predicted: Floats
    p: Floats

    @classmethod
    def of(cls, scores: Floats, agreed: Bools, predicted: Floats, single: Bools, *, alpha: float, delta: float) -> Self:
        """Count scores, agreements and predictions, (n,) or (s, n); `single` (n,) marks one row per group."""
        grid = threshold_grid(path(scores))
        tally = ThresholdCounts.of(scores, grid)
        n = np.stack([tally.counts(view) for view in (np.ones_like(single), single)])
        k = np.stack([tally.counts(view) for view in (agreed, agreed & single)])
        total = tally.sums(np.nan_to_num(predicted, nan=0.0, posinf=0.0, neginf=0.0))
        return cls(alpha, delta, len(single), grid, n, k, total / np.maximum(n[0], 1), p_values(k, n, alpha))

    def finding(self) -> WalkResult:
        """Walk from the threshold that most probably passes, by groups and predictions alone; read the walk."""
        groups = self.n[1]
        testable = groups >= n_min(self.alpha, self.delta)
        if not testable.any():
            return self._untested(int(groups[-1]))
        start = int(np.argmax(np.where(testable, power(groups, self.predicted, self.alpha, self.delta), -1.0)))
        steps = walk(self.grid, self.n[0], self.k[0], self.p.max(axis=0), start=start, delta=self.delta)
        passed = sum(step.p <= self.delta for step in steps)
        return self._passed(steps, start + passed - 1) if passed else self._failed(steps, start)

    def _untested(self, groups: int) -> WalkResult:
        if self.rows and not groups:
            return WalkResult("ineligible")
        short = n_min(self.alpha, self.delta) - groups
        return WalkResult("insufficient", rows_needed=math.ceil(short * self.rows / groups) if groups else short)

    def _passed(self, steps: tuple[Step, ...], last: int) -> WalkResult:
        """Return what the last threshold that passed proves: more than alpha only where the walk passed to its end."""
        exact = float(lower_bounds(self.k[:, last], self.n[:, last], self.delta).min())
        bound = max(self.alpha, exact) if last == len(self.grid) - 1 else self.alpha
        return WalkResult("certified", steps, int(self.n[0, last]), int(self.k[0, last]), bound, float(self.grid[last]))

    def _failed(self, steps: tuple[Step, ...], first: int) -> WalkResult:
        """Return what the first test saw, and how many rows more would have passed it in the view that is stricter."""
        n, k = self.n[:, first], self.k[:, first]
        exact = float(lower_bounds(k, n, self.delta).min())
        strict = int(self.p[:, first].argmax())
        enough = rows_to_pass(int(k[strict]), int(n[strict]), self.alpha, self.delta)
        more = 0 if enough is None else math.ceil((enough - n[strict]) * self.rows / n[strict])
        return WalkResult("disagreement", steps, int(n[0]), int(k[0]), exact, rows_needed=more)
