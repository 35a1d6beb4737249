"""Adam, a stochastic gradient method, in place and without temporary arrays."""

import numpy as np

from tracer_serve.types import Vectors

_MEAN, _SQUARE = np.float32(0.9), np.float32(0.999)  # memories of the gradient and of its square
_SMALLEST = np.float32(1e-8 / np.sqrt(1e-3))  # the usual 1e-8 in the denominator, on the scale of the sums
_BLOCK = 1 << 14  # numbers per block: all arrays of a block fit into the processor's second cache


class Adam:
    """Adam with an L2 penalty (Kingma and Ba 2015), on one flat array of weights.

    The two running sums are not normalised, which saves a third of the passes over the arrays; the step size
    compensates.

    Parameters
    ----------
    weights : changed in place, float32, shape (p,)
    penalty : L2 penalty, added to the gradient

    Attributes
    ----------
    slope : gradient, written by the caller before each step, shape (p,); a step overwrites it
    """

    def __init__(self, weights: Vectors, penalty: float) -> None:
        self.weights, self.slope, self._penalty = weights, np.zeros_like(weights), np.float32(penalty)
        self._sum, self._squares = np.zeros_like(weights), np.zeros_like(weights)
        self._scratch, self._steps = np.empty(min(len(weights), _BLOCK), np.float32), 0

    def step(self, rate: float) -> None:
        """Move the weights against the gradient."""
        self._steps += 1
        unbiased = np.sqrt(1 - float(_SQUARE) ** self._steps) / (1 - float(_MEAN) ** self._steps)
        size = np.float32(rate * unbiased * float(1 - _MEAN) / np.sqrt(float(1 - _SQUARE)))
        for start in range(0, len(self.weights), _BLOCK):
            block = slice(start, start + _BLOCK)
            weights, slope, total, squares = (
                part[block] for part in (self.weights, self.slope, self._sum, self._squares)
            )
            scratch = self._scratch[: len(weights)]
            np.multiply(weights, self._penalty, out=scratch)
            slope += scratch
            total *= _MEAN
            total += slope
            slope *= slope
            squares *= _SQUARE
            squares += slope
            np.sqrt(squares, out=scratch)
            scratch += _SMALLEST
            np.divide(total, scratch, out=scratch)
            scratch *= size
            weights -= scratch
