"""Shares, and the confidence of their exact intervals (`gate.binomial.exact_interval`)."""

import numpy as np

from tracer_serve.types import Floats, Ints

CONFIDENCE = 0.95
"""Confidence of the intervals in a report, each on its own."""


def share(k: Ints, n: Ints) -> Floats:
    """Return k / n; NaN if n = 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.asarray(k) / np.asarray(n)
    return ratio
