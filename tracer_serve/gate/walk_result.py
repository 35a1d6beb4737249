"""Walk the thresholds, and return which passed, or why none did."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from tracer_serve.gate.binomial import lower_bounds, n_min, p_values, rows_to_pass
from tracer_serve.gate.certificate import ProtectedLabel, Step
from tracer_serve.gate.fixed_sequence import ThresholdCounts, cascade_grid, power, walk
from tracer_serve.gate.protection import RecallTest, recall_tests
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class WalkResult:
    """Result of a walk, before the check of coverage; the fields are those of `Certificate`."""

    reason: str
    walk: tuple[Step, ...] = ()
    n: int = 0
    agreements: int = 0
    lower_bound: float = 0.0
    threshold: float = math.inf
    rows_needed: int = 0
    protected: tuple[ProtectedLabel, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether a threshold passed."""
        return self.reason == "certified"


@dataclass(frozen=True, slots=True)
class Counted:
    """Accepted rows at each of g thresholds, strictest first, counted twice: all rows, and one row per group.

    Repeats have two causes. If many people ask the same, rows are independent. If one cause sends a burst (retries,
    templates), only the groups are. A threshold passes if both counts pass, so the certificate holds in either case.
    Without repeats the two counts are equal.

    Parameters
    ----------
    rows : calibration rows
    grid : the thresholds, shape (g,)
    n, k : accepted rows and agreements among them, of each view, shape (2, g)
    predicted : mean predicted agreement of the accepted rows, shape (g,)
    p : p-value of "agreement is below alpha" in each view, shape (2, g)
    recall : the tests of the protected labels, each of which a threshold has to pass too
    """

    alpha: float
    delta: float
    rows: int
    grid: Floats
    n: Ints
    k: Ints
    predicted: Floats
    p: Floats
    recall: tuple[RecallTest, ...] = ()

    @classmethod
    def of(cls, rows: CalibrationRows, single: Bools, settings: GateSettings) -> Self:
        """Count the rows, whose scores are guarded and whose agreement is predicted.

        Parameters
        ----------
        single : one row per group, shape (n,)
        """
        scores, agreed, delta = rows.scores, rows.agreed, settings.tested_delta
        grid = cascade_grid(scores)
        tally = ThresholdCounts.of(scores, grid)
        n = np.stack([tally.counts(view) for view in (np.ones_like(single), single)])
        k = np.stack([tally.counts(view) for view in (agreed, agreed & single)])
        predicted = np.zeros_like(scores) if rows.predicted is None else rows.predicted
        total = tally.sums(np.nan_to_num(predicted, nan=0.0, posinf=0.0, neginf=0.0))
        return cls(
            alpha=settings.alpha,
            delta=delta,
            rows=len(single),
            grid=grid,
            n=n,
            k=k,
            predicted=total / np.maximum(n[0], 1),
            p=p_values(k, n, settings.alpha),
            recall=recall_tests(tally, rows, single, settings),
        )

    def finding(self) -> WalkResult:
        """Walk from the threshold that most probably passes by groups and predictions alone; return the result."""
        groups = self.n[1]
        testable = groups >= n_min(self.alpha, self.delta)
        if not testable.any():
            return self._untested(int(groups[-1]))
        if lacking := [test for test in self.recall if test.missing]:
            more = max(self._rows_for(test, test.missing) for test in lacking)
            last = tuple(test.at(len(self.grid) - 1) for test in self.recall)
            return WalkResult("insufficient", rows_needed=more, protected=last)
        start = int(np.argmax(np.where(testable, power(groups, self.predicted, self.alpha, self.delta), -1.0)))
        p = np.stack([self.p, *(test.p for test in self.recall)]).max(axis=(0, 1))
        steps = walk(self.grid, self.n[0], self.k[0], p, start=start, delta=self.delta)
        passed = sum(step.p <= self.delta for step in steps)
        return self._passed(steps, start + passed - 1) if passed else self._failed(steps, start)

    def _untested(self, groups: int) -> WalkResult:
        if self.rows and not groups:
            return WalkResult("ineligible")
        short = n_min(self.alpha, self.delta) - groups
        return WalkResult("insufficient", rows_needed=math.ceil(short * self.rows / groups) if groups else short)

    def _passed(self, steps: tuple[Step, ...], last: int) -> WalkResult:
        """Return the result at the last threshold that passed; the bound exceeds alpha only if all passed."""
        exact = float(lower_bounds(self.k[:, last], self.n[:, last], self.delta).min())
        return WalkResult(
            "certified",
            steps,
            n=int(self.n[0, last]),
            agreements=int(self.k[0, last]),
            lower_bound=max(self.alpha, exact) if last == len(self.grid) - 1 else self.alpha,
            threshold=float(self.grid[last]),
            protected=tuple(test.at(last) for test in self.recall),
        )

    def _failed(self, steps: tuple[Step, ...], first: int) -> WalkResult:
        """Return the result of the first test, and how many more rows its stricter count needs to pass."""
        n, k = self.n[:, first], self.k[:, first]
        strict = int(self.p[:, first].argmax())
        disagreed = bool(self.p[strict, first] > self.delta)
        if disagreed:
            enough = rows_to_pass(int(k[strict]), int(n[strict]), self.alpha, self.delta)
            more = 0 if enough is None else math.ceil((enough - n[strict]) * self.rows / n[strict])
        else:
            more = max(self._rows_for(test, test.needed(first)) for test in self.recall)
        return WalkResult(
            "disagreement" if disagreed else "recall",
            steps,
            n=int(n[0]),
            agreements=int(k[0]),
            lower_bound=float(lower_bounds(k, n, self.delta).min()),
            rows_needed=more,
            protected=tuple(test.at(first) for test in self.recall),
        )

    def _rows_for(self, test: RecallTest, more: int) -> int:
        """Estimate how many rows of traffic contain `more` rows of a protected label."""
        return math.ceil(more * self.rows / max(1, int(test.n.min())))
