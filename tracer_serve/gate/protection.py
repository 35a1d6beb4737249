"""Test the recall of protected labels: exact binomial tests over the whole system (gate.md, section 12).

A row is lost where it carries the label and is handled under another one. Among the rows of the label, the number that
is kept at a threshold is binomial, so each threshold has an exact p-value. Recall can only rise as the threshold does:
a threshold under which the promise is broken passes only if the strictest such threshold passes too, which has
probability at most delta (risk control for monotone losses: Bates et al., arXiv 2101.02703). The test therefore holds
at every threshold at once, for all protected labels together, however the threshold is chosen.

It is made beside the test of agreement at one and the same delta. A version needs all of them, so delta is not divided
(intersection-union test: Berger, Technometrics 24, 1982).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from tracer_serve.gate.binomial import lower_bounds, n_min, p_values, rows_to_pass
from tracer_serve.gate.certificate import ProtectedLabel
from tracer_serve.gate.fixed_sequence import ThresholdCounts
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class RecallTest:
    """Recall test of one protected label at each of g thresholds, on all rows and on one row per group.

    Parameters
    ----------
    label, required : the label, and the recall that is promised
    delta : level of the test
    n : rows of the label in each view, shape (2, 1)
    k : how many of them are deferred or get the label, shape (2, g)
    p : p-value of "recall is below what is required" in each view, shape (2, g)
    """

    label: str
    required: float
    delta: float
    n: Ints
    k: Ints
    p: Floats

    @classmethod
    def of(
        cls,
        tally: ThresholdCounts,
        own: Bools,
        agreed: Bools,
        single: Bools,
        *,
        label: str,
        required: float,
        delta: float,
    ) -> Self:
        """Count the rows of a label.

        Parameters
        ----------
        own : rows that the teacher labels so, shape (n,)
        agreed : whether the answer is the teacher's label, shape (n,) or (s, n)
        single : one row per group, shape (n,)
        """
        views = (own, own & single)
        n = np.array([[int(view.sum())] for view in views])
        k = n - np.stack([tally.counts(view & ~agreed) for view in views])
        return cls(label, required, delta, n, k, p_values(k, n, required))

    @property
    def missing(self) -> int:
        """Number of further rows of the label that any test needs."""
        return max(0, n_min(self.required, self.delta) - int(self.n.min()))

    def needed(self, at: int) -> int:
        """Estimate how many more rows of the label a threshold needs to pass, at the recall observed there."""
        worst = int(self.p[:, at].argmax())
        k, n = int(self.k[worst, at]), int(self.n[worst, 0])
        enough = rows_to_pass(k, n, self.required, self.delta)
        return 0 if enough is None or self.p[worst, at] <= self.delta else enough - n

    def at(self, threshold: int) -> ProtectedLabel:
        """Return the result for the label at the threshold with this index."""
        k = self.k[:, threshold]
        bound = float(lower_bounds(k, self.n[:, 0], self.delta).min())
        return ProtectedLabel(self.label, self.required, int(self.n[0, 0]), int(k[0]), bound)


def recall_tests(
    tally: ThresholdCounts, rows: CalibrationRows, single: Bools, settings: GateSettings
) -> tuple[RecallTest, ...]:
    """Return the test of each protected label on rows placed on a grid of thresholds.

    Raises
    ------
    ValueError
        If labels are protected and the teacher's labels are not given.
    """
    if not settings.protect:
        return ()
    if rows.truth is None:
        raise ValueError("a protected label needs the teacher's label of each calibration row")
    truth, delta = rows.truth, settings.tested_delta
    return tuple(
        RecallTest.of(
            tally, np.asarray(truth == label), rows.agreed, single, label=label, required=required, delta=delta
        )
        for label, required in settings.protect.items()
    )
