"""Exact two-sided intervals of a share (Clopper and Pearson, 1934)."""

import numpy as np

from tracer_serve.gate.binomial import lower_bounds
from tracer_serve.types import Floats, Ints

CONFIDENCE = 0.95
"""Confidence of the intervals in a report, each on its own."""


def exact_interval(k: Ints | int, n: Ints | int, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Return lower and upper bound of the share behind k of n; 0 and 1 where n = 0.

    Examples
    --------
    >>> [float(bound.round(3)) for bound in exact_interval(8, 10)]
    [0.444, 0.975]
    """
    k, n, tail = np.asarray(k), np.asarray(n), (1.0 - confidence) / 2.0
    return lower_bounds(k, n, tail), 1.0 - lower_bounds(n - k, n, tail)


def share(k: Ints, n: Ints) -> Floats:
    """Return k / n, NaN where n = 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.asarray(k) / np.asarray(n)
    return ratio
