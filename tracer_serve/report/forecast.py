"""Forecast the coverage at twice the traces, with a range: a planning figure, not a promise.

The deferred share is taken to follow a power law of the traces, by least squares on the logarithms; leaving out one
size at a time gives the range. Where the refits cannot test what this version promises, or too few sizes certify
anything, only the exponent is taken from them and this version's own coverage is extrapolated; the range then includes
no growth at all.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer_serve.types import Floats

_FORECAST = (
    " Forecast: the deferred share follows a power law of the traces; its range comes from omitting one size at a time."
)
_BASIS = {
    "certified": "",
    "refits": " The refits certify one threshold for all labels, which is not all that this version promises or how it"
    " was fitted; only their growth is used.",
    "reach": " Too few sizes certify anything, so the growth is that of the share whose measured agreement is alpha.",
    "none": " No size reaches alpha, so the range is an assumption: from no growth to that of the square root.",
}
_FASTEST = 0.5  # exponent assumed where none can be measured
_SIZES = 3  # sizes that an exponent needs: two points cannot be doubted


@dataclass(frozen=True, slots=True, eq=False)
class RefitCurve:
    """Refits of several sizes: traces, certified coverage, and share whose measured agreement is alpha, shape (r,)."""

    traces: Floats
    coverage: Floats
    reach: Floats


def method_of(basis: str) -> str:
    """Return how a forecast of this basis was made, in words."""
    return _FORECAST + _BASIS[basis]


def forecast_of(curve: RefitCurve, own: float, reach: float, rows: int | None, total: int) -> dict[str, Any] | None:
    """Return the forecast of a version at twice its traces; None if fewer than three sizes were refitted.

    Parameters
    ----------
    own, reach : of the version itself; ``own`` is 0 if nothing is certified
    rows : calibration rows of the version, where its certificate continues the curve of the refits
    total : rows that it was fitted and certified on

    Returns
    -------
    ``traces``, ``coverage``, ``low``, ``high``, ``exponent``, ``now``, and the ``basis``: ``certified``, ``refits``,
    ``reach``, or ``none`` where no size reaches alpha.
    """
    if len(np.unique(curve.traces)) < _SIZES:
        return None
    found = None if rows is None else forecast(np.append(curve.traces, rows), np.append(curve.coverage, own))
    if found is not None:
        return found | {"basis": "certified", "now": own}
    basis, now, steepness = "refits", own, exponents(curve.traces, curve.coverage)
    if not own or not steepness:
        basis, now, steepness = "reach", own or reach, exponents(curve.traces, curve.reach)
    if not steepness:
        basis, steepness = ("reach", [0.0]) if now >= 1.0 else ("none", [0.0, _FASTEST])
    at_twice = [_extrapolated(now, exponent) for exponent in steepness]
    low, high = min(own, *at_twice), max(now, *at_twice)
    first = {"traces": 2 * total, "coverage": at_twice[0], "low": low, "high": high}
    return first | {"exponent": steepness[0], "basis": basis, "now": now}


def forecast(traces: Floats, coverage: Floats) -> dict[str, Any] | None:
    """Return the forecast coverage at twice the traces, with its range; None if too little was certified.

    Examples
    --------
    >>> deferred = 0.4 * np.array([1.0, 2.0, 4.0]) ** -0.5
    >>> round(forecast(np.array([100.0, 200.0, 400.0]), 1 - deferred)["coverage"], 3)
    0.859
    """
    steepness = exponents(traces, coverage)
    now = float(coverage[traces == traces.max()][-1])
    if not steepness or not 0.0 < now < 1.0:
        return None
    at_twice = [_extrapolated(now, exponent) for exponent in steepness]
    return {
        "traces": int(2 * traces.max()),
        "coverage": at_twice[0],
        "low": min(at_twice),
        "high": max(at_twice),
        "exponent": steepness[0],
    }


def exponents(traces: Floats, coverage: Floats) -> list[float]:
    """Return the exponent of the power law of all sizes, then those without one size each; empty for under three sizes.

    Sizes at which nothing or everything was covered have no logarithm and are left out.
    """
    usable = ~np.isin(traces, np.unique(traces[(coverage <= 0.0) | (coverage >= 1.0)]))
    x, y = np.log(traces[usable]), np.log1p(-coverage[usable])
    sizes = np.unique(x)
    if len(sizes) < _SIZES:
        return []
    return [max(0.0, -_slope(*part)) for part in ((x, y), *((x[x != out], y[x != out]) for out in sizes))]


def _slope(x: Floats, y: Floats) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def _extrapolated(coverage: float, exponent: float) -> float:
    return 1.0 - (1.0 - coverage) * math.pow(2.0, -exponent)
