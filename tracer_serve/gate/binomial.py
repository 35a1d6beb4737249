"""Exact binomial tail probabilities, bounds and critical counts, vectorised over counts.

All of them are the regularised incomplete beta function: P(Bin(n, p) >= k) = I_p(k, n - k + 1)
(Clopper and Pearson, 1934). scipy.special is imported on first use: serving does not need it, and starts a quarter of a
second sooner.
"""

import math
from typing import TypeAlias

import numpy as np

from tracer_serve.types import Floats, Ints

Counts: TypeAlias = Ints | int


def p_values(k: Counts, n: Counts, alpha: float | Floats) -> Floats:
    """Return P(Bin(n, alpha) >= k), the exact p-value of "agreement is below alpha".

    Parameters
    ----------
    k : agreements, 0 <= k <= n + 1
    n : rows
    alpha : required agreement, in [0, 1]; the three broadcast

    Examples
    --------
    >>> p_values(np.array([58, 59]), np.array([58, 59]), 0.95).round(4).tolist()
    [0.051, 0.0485]
    """
    from scipy.special import betainc  # noqa: PLC0415

    k, n = np.asarray(k), np.asarray(n)
    inside = (k > 0) & (k <= n)
    tail = betainc(np.where(inside, k, 1), np.where(inside, n - k + 1, 1), alpha)
    result: Floats = np.where(inside, tail, np.where(k <= 0, 1.0, 0.0))
    return result


def lower_bounds(k: Counts, n: Counts, delta: float) -> Floats:
    """Return the one-sided Clopper-Pearson lower bound of the agreement at confidence 1 - delta; 0 if k = 0.

    It is the largest alpha that `p_values` rejects at delta: bound >= alpha if and only if p <= delta.

    Examples
    --------
    >>> float(lower_bounds(59, 59, 0.05).round(4))
    0.9505
    """
    from scipy.special import betaincinv  # noqa: PLC0415

    k, n = np.asarray(k), np.asarray(n)
    bound: Floats = np.where(k > 0, betaincinv(np.maximum(k, 1), np.maximum(n - k, 0) + 1, delta), 0.0)
    return bound


def exact_interval(k: Counts, n: Counts, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return the two-sided Clopper-Pearson interval of the share behind k of n; 0 and 1 where n = 0.

    Examples
    --------
    >>> [float(bound.round(3)) for bound in exact_interval(8, 10)]
    [0.444, 0.975]
    """
    k, n, tail = np.asarray(k), np.asarray(n), (1.0 - confidence) / 2.0
    return lower_bounds(k, n, tail), 1.0 - lower_bounds(n - k, n, tail)


def n_min(alpha: float, delta: float) -> int:
    """Return the least number of rows that can certify alpha: the least n with alpha^n <= delta, if all n agree.

    Examples
    --------
    >>> [n_min(alpha, 0.05) for alpha in (0.85, 0.9, 0.95, 0.97, 0.99)]
    [19, 29, 59, 99, 299]
    """
    n = max(1, math.ceil(math.log(delta) / math.log(alpha)) - 1)
    while p_values(n, n, alpha) > delta:  # the logarithms may be off by one rounding
        n += 1
    return n


def critical_counts(n: Ints, alpha: float, delta: float) -> Ints:
    """Return the least k with P(Bin(n, alpha) >= k) <= delta, shape of n; n + 1 if even k = n fails."""
    low, high = np.zeros_like(n), n + 1  # p(low) > delta >= p(high) throughout
    while np.any(high - low > 1):
        middle = (low + high) // 2
        passes = p_values(middle, n, alpha) <= delta
        low, high = np.where(passes, low, middle), np.where(passes, middle, high)
    return high


def rows_to_pass(k: int, n: int, alpha: float, delta: float) -> int | None:
    """Estimate how many rows would pass at the agreement k / n; None if no number would.

    For planning: it assumes that the true agreement is the observed one.
    """
    if n == 0 or k / n <= alpha:
        return None
    low, high = n, 2 * n
    while p_values(math.floor(high * k / n), high, alpha) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        passes = p_values(math.floor(middle * k / n), middle, alpha) <= delta
        low, high = (low, middle) if passes else (middle, high)
    return high
