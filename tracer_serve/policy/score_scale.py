"""Where a stage's score lies on the policy's path.

A single threshold decides on all stages of a policy, so their scores must lie on one path: each stage's `Scale` turns
its score into a predicted agreement (gate.md, section 10). The gate relies on no such prediction; a bad scale costs
coverage only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from tracer_serve.gate.logistic_regression import fit_logistic, sigmoid
from tracer_serve.types import Bools, Floats

_KNOTS = 200
_RIDGE = 1e-3  # keeps the weights finite where all rows agree
_SLOPE = 1e-6  # keeps the order of rows with the same estimated agreement


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """A rising piecewise linear function from score to predicted agreement; without knots the identity.

    Parameters
    ----------
    knots, values : shape (m,), both ascending
    least : scores under it have no place on the path: such rows are always left to a later stage
    """

    knots: Floats
    values: Floats
    least: float = -math.inf

    @classmethod
    def identity(cls) -> Self:
        """Return the scale of a policy with a single stage, whose path is its score."""
        return cls(np.empty(0), np.empty(0))

    @classmethod
    def fit(cls, score: Floats, agreed: Bools, least: float = -math.inf) -> Self:
        """Fit on scores (n,) and whether the teacher agreed (n,): a logistic curve over the logit of a score's rank.

        Smooth, because rows of different folds, and of both stages, are put in one order by it: where bins of rows had
        equal values, chance decided who was on top.
        """
        score, agreed = score[np.isfinite(score)], agreed[np.isfinite(score)]
        knots, place, count = np.unique(score, return_inverse=True, return_counts=True)
        if not len(knots):
            return cls(np.empty(0), np.empty(0), least)
        rank = (np.cumsum(count) - count / 2) / len(score)
        z = np.log(rank / (1 - rank))
        some = np.unique(np.searchsorted(z, np.linspace(z[0], z[-1], _KNOTS)).clip(0, len(z) - 1))
        values = _logistic(z[place], agreed)(z[some]) + _SLOPE * np.arange(len(some))
        return cls(knots[some], values, least)

    def __call__(self, score: Floats) -> Floats:
        """Return the predicted agreement of scores (n,); NaN if the score is not finite."""
        if not len(self.knots):
            return score
        has_place = np.isfinite(score) & (score >= self.least)
        on_path: Floats = np.where(has_place, np.interp(score, self.knots, self.values), np.nan)
        # beyond the outermost bins the scores still distinguish rows
        beyond = np.where(has_place, score - np.clip(score, self.knots[0], self.knots[-1]), 0.0)
        on_path += _SLOPE * np.tanh(beyond)
        return on_path


def _logistic(z: Floats, agreed: Bools) -> Callable[[Floats], Floats]:
    """Return P(agreed | z) by logistic regression on (n,), never falling."""
    intercept, slope = fit_logistic(np.column_stack([np.ones_like(z), z]), agreed, np.full(2, _RIDGE))
    return lambda at: sigmoid(intercept + max(0.0, slope) * at)
