"""Veto of the protected labels: what may carry one of them is never handled under another label (gate.md, section 12).

The acceptor's score predicts whether an answer is right, and a rare label hardly affects it. A veto on the probability
of that label keeps its recall at a higher coverage than a stricter threshold would. It is a guard like the scope guard:
fixed on rows other than those it decides on, so that the certificate tests it as it is served.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tracer_serve.config.gate import GateSpec
from tracer_serve.fit.candidate import CandidateStage
from tracer_serve.fit.cross_fit import class_codes
from tracer_serve.fit.fold_data import Folds
from tracer_serve.gate.binomial import critical_counts, p_values
from tracer_serve.gate.fixed_sequence import ThresholdCounts, threshold_grid
from tracer_serve.types import Bools, Floats, Ints, Vectors

_SHARES = np.linspace(0.0, 1.0, 51)  # of the rows that may be vetoed: the limits that are compared
_SURE = 0.8  # predicted probability that the certificate shows the recall at the loosest threshold


@dataclass(frozen=True, slots=True, eq=False)
class VetoRows:
    """Out-of-fold rows on which vetoes are chosen, n of them.

    Parameters
    ----------
    risk : rank of the surrogate's probability of each protected label (`fit.risk_rank`), shape (p, n)
    protected : class index of each protected label, -1 for one that no row carries, shape (p,)
    truth, top : class index of the teacher's and of the surrogate's label, shape (n,)
    score : the acceptor's score; NaN if another guard does not let the row pass, shape (n,)
    """

    risk: Vectors
    protected: Ints
    truth: Ints
    top: Ints
    score: Floats

    def take(self, rows: Bools) -> "VetoRows":
        """Return the rows given by mask."""
        parts = self.truth[rows], self.top[rows], self.score[rows]
        return VetoRows(self.risk[:, rows], self.protected, *parts)

    def vetoed(self, limits: Floats) -> Bools:
        """Return which rows exceed the limit of a protected label that they would not get, shape (n,)."""
        over = (self.risk > limits[:, None]) & (self.top != self.protected[:, None])
        found: Bools = over.any(axis=0)
        return found


@dataclass(frozen=True, slots=True)
class VetoChooser:
    """Chooses the limits with which most rows can be handled.

    Parameters
    ----------
    protect : recall that is promised for each protected label
    alpha, delta : the promise
    tested : rows of the certificate as a share of the rows that choose
    """

    protect: Mapping[str, float]
    alpha: float
    delta: float
    tested: float = 1.0

    @classmethod
    def of(cls, gate: GateSpec, tested: float) -> "VetoChooser":
        """Return the chooser for a task's promise."""
        return cls(gate.protect, gate.alpha, gate.delta, tested)

    def choose(self, rows: VetoRows) -> Floats:
        """Return the limit of each protected label, shape (p,): one label after the other, given those before it."""
        limits = np.full(len(self.protect), np.inf)
        for label, required in enumerate(self.protect.values()):
            may = np.isfinite(rows.score) & (rows.top != rows.protected[label])
            known = np.sort(rows.risk[label, may])
            tried = np.unique(np.quantile(known, 1.0 - _SHARES)) if len(known) else np.zeros(1)
            reach = []
            for limit in (*tried, np.inf):
                limits[label] = limit
                reach.append(self._reach(rows, limits, label, required))
            loosest = len(reach) - 1 - int(np.argmax(reach[::-1]))
            limits[label] = (*tried, np.inf)[loosest if max(reach) > 0.0 else 0]  # the strictest where nothing can pass
        return limits

    def choose_apart(self, rows: VetoRows, fold: Ints, fair: Bools) -> Bools:
        """Return which rows are vetoed by the limits that the fair rows of the other folds choose, shape (n,)."""
        vetoed = np.zeros(len(fold), bool)
        for held_out in np.unique(fold):
            test = fold == held_out
            vetoed[test] = rows.take(test).vetoed(self.choose(rows.take(fair & ~test)))
        return vetoed

    def _reach(self, rows: VetoRows, limits: Floats, label: int, required: float) -> float:
        """Return the largest share of the rows that passes at alpha while the label's recall is sure to be shown."""
        score = np.where(rows.vetoed(limits), np.nan, rows.score)
        own, agreed = rows.truth == rows.protected[label], rows.top == rows.truth
        tally = ThresholdCounts.of(score, threshold_grid(score))
        n, k = tally.counts(np.ones_like(agreed)), tally.counts(agreed)
        recall = 1.0 - tally.sums(own & ~agreed) / max(1, int(own.sum()))
        tested = np.array([round(self.tested * int(own.sum()))])
        sure = p_values(critical_counts(tested, required, self.delta), tested, recall) >= _SURE
        passing = (p_values(k, n, self.alpha) <= self.delta) & sure
        return float(n[passing].max(initial=0) / max(1, len(score)))


def with_veto(part: CandidateStage, folds: Folds, chooser: VetoChooser) -> CandidateStage:
    """Return a surrogate with acceptor whose rows are vetoed as the other folds say, and the limits that are served."""
    score = np.where(part.open & (part.oof.scope >= part.guard), part.score, np.nan)
    codes = class_codes(folds.classes, [*chooser.protect])
    rows, fair = VetoRows(part.oof.risk, codes, folds.codes, part.oof.top, score), folds.rows.calibrates
    vetoed = chooser.choose_apart(rows, folds.fold, fair)
    return replace(part, vetoed=vetoed, limits=tuple(chooser.choose(rows.take(fair))))
