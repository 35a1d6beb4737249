"""Features of a row of class probabilities, shared by the acceptors."""

from typing import Final

import numpy as np

from tracer_serve.types import Floats, Vectors

TINY: Final = 1e-6
"""Probabilities are clipped to at least this distance from 0 and 1 before a logarithm."""


def top_two(proba: Vectors) -> tuple[Vectors, Vectors]:
    """Return the largest and the second largest probability of each row of (n, k); a row with a NaN gives NaN.

    Examples
    --------
    >>> [column.tolist() for column in top_two(np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32))]
    [[0.75, 0.5], [0.25, 0.5]]
    """
    if proba.shape[1] == 1:
        return proba[:, 0], np.zeros_like(proba[:, 0]) * proba[:, 0]
    sorted_last = np.partition(proba, -2, axis=1)
    broken = np.where(np.isnan(proba).any(axis=1), np.float32(np.nan), np.float32(0))
    return sorted_last[:, -1] + broken, sorted_last[:, -2] + broken


def logit(p: Floats) -> Floats:
    """Return the log odds, finite at 0 and 1; NaN gives NaN."""
    inside = np.minimum(np.maximum(p, TINY), 1 - TINY)
    odds: Floats = np.log(inside) - np.log1p(-inside)
    return odds
