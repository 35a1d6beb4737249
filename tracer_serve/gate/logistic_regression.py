"""Logistic regression with a normal prior, by Newton's method."""

import numpy as np

from tracer_serve.types import Bools, Floats

_STEPS = 50
_TOLERANCE = 1e-12  # of the loss, per row
_SMALLEST_STEP = 1e-12


def sigmoid(value: Floats) -> Floats:
    """Return 1 / (1 + exp(-value)), without overflow."""
    found: Floats = 0.5 * (1.0 + np.tanh(0.5 * value))
    return found


def fit_logistic(design: Floats, target: Bools, precision: Floats, mean: Floats | float = 0.0) -> Floats:
    """Return the maximum a posteriori weights, shape (f,).

    The loss is convex. A step is halved until it lowers the loss, because full Newton steps diverge if nearly all
    targets are equal.

    Parameters
    ----------
    design : shape (n, f); the first column is the intercept's, all ones
    target : shape (n,)
    precision : inverse variances of the prior, shape (f,); positive, so that weights stay finite where all targets are
        equal
    mean : means of the prior

    Examples
    --------
    >>> x = np.linspace(-1, 1, 201)
    >>> weights = fit_logistic(np.column_stack([np.ones(201), x]), x > 0, np.array([1e-9, 1.0]))
    >>> round(float(weights[1]), 1)
    5.4
    """
    target = np.asarray(target, dtype=np.float64)
    sign = 1.0 - 2.0 * target

    def loss(weights: Floats) -> float:
        fit = np.logaddexp(0.0, sign * (design @ weights)).sum()
        return float(fit + 0.5 * (precision * (weights - mean) ** 2).sum())

    weights = np.zeros(design.shape[1])
    weights[0] = np.log((target.sum() + 0.5) / (len(target) - target.sum() + 0.5))
    before = loss(weights)
    for _ in range(_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target) + precision * (weights - mean)
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while (after := loss(weights - step)) > before and np.abs(step).max() > _SMALLEST_STEP:
            step /= 2.0
        weights, improved, before = weights - step, before - after, after
        if improved < _TOLERANCE * max(1, len(target)):
            break
    return weights
