"""Neural network with one hidden layer on the embedding."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._adam import Adam
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.types import Inputs, Ints, Labels, Vectors

_FEWEST_STEPS = 100  # a small training set gets more epochs
_CHANCES = 1 << 16  # values of the random numbers that decide on dropout


@surrogates.register("mlp")
class Mlp:
    """One hidden ReLU layer with dropout, trained by Adam at a rate that falls to zero, without early stopping.

    Vectors are scaled to a mean square of 1, so that one learning rate suits single texts and pairs.

    Parameters
    ----------
    hidden : width of the hidden layer
    dropout : share of hidden units dropped per step (Srivastava et al. 2014)
    alpha : L2 penalty
    learning_rate : of Adam (Kingma and Ba 2015), at the first step
    batch : rows per step
    epochs : passes over the rows, at least as many as 100 steps need
    max_rows : maximum number of rows used, a uniform sample of more
    seed : of the initial weights, the order of rows, the dropout and that sample
    """

    cost = 2.0  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

    def __init__(
        self,
        *,
        hidden: Annotated[int, Field(ge=1)] = 512,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        alpha: Annotated[float, Field(ge=0)] = 1e-4,
        learning_rate: Annotated[float, Field(gt=0)] = 0.02,
        batch: Annotated[int, Field(ge=1)] = 128,
        epochs: Annotated[int, Field(ge=1)] = 8,
        max_rows: Annotated[int, Field(ge=1)] = 100_000,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.hidden, self.dropout, self.alpha, self.learning_rate = hidden, dropout, alpha, learning_rate
        self.batch, self.epochs, self.max_rows, self.seed = batch, epochs, max_rows, seed
        self.classes_: Labels = np.empty(0, np.str_)
        self.hidden_: Vectors = np.empty((0, 0), np.float32)
        self.hidden_bias_: Vectors = np.empty(0, np.float32)
        self.output_: Vectors = np.empty((0, 0), np.float32)
        self.output_bias_: Vectors = np.empty(0, np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on n rows; with a single class there is nothing to learn."""
        self.classes_, y = encode(labels)
        x = np.asarray(inputs.embeddings, np.float32)
        rng = np.random.default_rng(self.seed)
        if len(y) > self.max_rows:
            keep = np.sort(rng.choice(len(y), self.max_rows, replace=False))
            x, y = x[keep], y[keep]
        width, k = self.hidden if len(self.classes_) > 1 else 1, len(self.classes_)
        scale = np.float32(1 / np.sqrt(max(float(np.mean(np.einsum("ij,ij->i", x, x))), 1e-12)))
        weights = _Weights.drawn(rng, x.shape[1], width, k)
        if k > 1:
            self._descend(weights, scale * x, y, rng)
        self.hidden_, self.hidden_bias_ = scale * weights.hidden, weights.hidden_bias.copy()
        self.output_, self.output_bias_ = weights.output.copy(), weights.output_bias.copy()
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        hidden = np.maximum(np.asarray(inputs.embeddings, np.float32) @ self.hidden_ + self.hidden_bias_, 0)
        return softmax(hidden @ self.output_ + self.output_bias_)

    def _descend(self, weights: "_Weights", x: Vectors, y: Ints, rng: np.random.Generator) -> None:
        adam = Adam(weights.flat, self.alpha)
        gradient = _Gradient(weights, weights.like(adam.slope), min(self.batch, len(y)), self.dropout, rng)
        per_epoch = -(-len(y) // self.batch)
        total = per_epoch * max(self.epochs, -(-_FEWEST_STEPS // per_epoch))
        for step in range(total):
            if step % per_epoch == 0:
                order = rng.permutation(len(y))
            rows = order[step % per_epoch * self.batch :][: self.batch]
            gradient(x[rows], y[rows])
            adam.step(self.learning_rate * (1 - step / total))


class _Weights:
    """Weights of the network as views of one flat array."""

    def __init__(self, flat: Vectors, shape: tuple[int, int, int]) -> None:
        (d, width, k), self.flat, self.shape = shape, flat, shape
        hidden, bias, output, self.output_bias = np.split(flat, np.cumsum([d * width, width, width * k]))
        self.hidden, self.hidden_bias, self.output = hidden.reshape(d, width), bias, output.reshape(width, k)

    @classmethod
    def drawn(cls, rng: np.random.Generator, d: int, width: int, k: int) -> "_Weights":
        """Draw initial weights (He et al. 2015); biases are 0."""
        drawn = cls(np.zeros(d * width + width + width * k + k, np.float32), (d, width, k))
        for part, gain in ((drawn.hidden, 2.0), (drawn.output, 1.0)):
            scale = np.float32(np.sqrt(gain / len(part)))
            part[:] = scale * rng.standard_normal(part.shape, np.float32)
        return drawn

    def like(self, flat: Vectors) -> "_Weights":
        """Return another flat array of the same size as weights."""
        return type(self)(flat, self.shape)


class _Gradient:
    """Gradient of the mean log loss of a batch, with dropout, written in place.

    Parameters
    ----------
    weights : weights at which the gradient is computed
    slope : output array
    batch : maximum number of rows in a batch
    """

    def __init__(
        self, weights: _Weights, slope: _Weights, batch: int, dropout: float, rng: np.random.Generator
    ) -> None:
        self.weights, self.slope, self.rng = weights, slope, rng
        self.least, self.kept = np.uint16(dropout * _CHANCES), np.float32(1 / (1 - dropout))
        _, width, k = weights.shape
        self.buffers = [np.empty((batch, size), np.float32) for size in (width, width, width, k)]

    def __call__(self, x: Vectors, y: Ints) -> None:
        """Compute the gradient on rows (b, d) with class indices (b,)."""
        weights, slope = self.weights, self.slope
        hidden, mask, back, error = (part[: len(y)] for part in self.buffers)
        np.matmul(x, weights.hidden, out=hidden)
        hidden += weights.hidden_bias
        np.maximum(hidden, 0, out=hidden)
        chances = np.frombuffer(self.rng.bytes(2 * hidden.size), np.uint16).reshape(hidden.shape)
        np.multiply(chances >= self.least, self.kept, out=mask)
        hidden *= mask
        np.matmul(hidden, weights.output, out=error)
        error += weights.output_bias
        _log_loss_slope(error, y)
        np.matmul(error, weights.output.T, out=back)
        back *= mask
        back *= hidden > 0
        np.matmul(x.T, back, out=slope.hidden)
        np.matmul(hidden.T, error, out=slope.output)
        back.sum(axis=0, out=slope.hidden_bias)
        error.sum(axis=0, out=slope.output_bias)


def _log_loss_slope(logits: Vectors, y: Ints) -> None:
    """Turn logits (b, k) into the slope of the mean log loss, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    logits[np.arange(len(y)), y] -= 1
    logits /= np.float32(len(y))
