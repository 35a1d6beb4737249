"""Neural network with one hidden layer on the embedding."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.types import Inputs, Ints, Labels, Vectors

_FEWEST_STEPS = 600  # a small training set gets more epochs
_FAST, _SLOW = np.float32(0.9), np.float32(0.999)  # Adam's memories of the gradient and of its square


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
    epochs : passes over the rows, at least as many as 600 steps need
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
        epochs: Annotated[int, Field(ge=1)] = 12,
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
        self.hidden_ = _normal(rng, x.shape[1], width, 2.0)
        self.output_ = _normal(rng, width, k, 1.0)
        self.hidden_bias_, self.output_bias_ = np.zeros(width, np.float32), np.zeros(k, np.float32)
        if k > 1:
            self._descend(scale * x, y, rng)
        self.hidden_ *= scale
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        hidden = np.maximum(np.asarray(inputs.embeddings, np.float32) @ self.hidden_ + self.hidden_bias_, 0)
        return softmax(hidden @ self.output_ + self.output_bias_)

    def _descend(self, x: Vectors, y: Ints, rng: np.random.Generator) -> None:
        weights = [self.hidden_, self.hidden_bias_, self.output_, self.output_bias_]  # changed in place
        means, squares = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
        per_epoch = -(-len(y) // self.batch)
        total = per_epoch * max(self.epochs, -(-_FEWEST_STEPS // per_epoch))
        for step in range(total):
            if step % per_epoch == 0:
                order = rng.permutation(len(y))
            rows = order[step % per_epoch * self.batch :][: self.batch]
            unbias = np.sqrt(1 - _SLOW ** (step + 1)) / (1 - _FAST ** (step + 1))
            rate = np.float32(self.learning_rate * (1 - step / total) * unbias)
            slopes = self._slopes(x[rows], y[rows], rng)
            for parts in zip(weights, means, squares, slopes, strict=True):
                _adam(*parts, rate)

    def _slopes(self, x: Vectors, y: Ints, rng: np.random.Generator) -> tuple[Vectors, ...]:
        """Return the gradients of the mean log loss of a batch, with dropout."""
        before = x @ self.hidden_ + self.hidden_bias_
        kept = (before > 0) * (rng.random(before.shape, np.float32) >= self.dropout) / np.float32(1 - self.dropout)
        hidden = before * kept
        error = softmax(hidden @ self.output_ + self.output_bias_)
        error[np.arange(len(y)), y] -= 1
        error /= np.float32(len(y))
        back = (error @ self.output_.T) * kept
        penalty = np.float32(self.alpha)
        return (
            x.T @ back + penalty * self.hidden_,
            back.sum(axis=0),
            hidden.T @ error + penalty * self.output_,
            error.sum(axis=0),
        )


def _adam(weights: Vectors, mean: Vectors, square: Vectors, slope: Vectors, rate: np.float32) -> None:
    """Take one step, in place."""
    mean += (1 - _FAST) * (slope - mean)
    square += (1 - _SLOW) * (slope * slope - square)
    weights -= rate * mean / (np.sqrt(square) + np.float32(1e-8))


def _normal(rng: np.random.Generator, rows: int, columns: int, gain: float) -> Vectors:
    return rng.standard_normal((rows, columns), np.float32) * np.float32(np.sqrt(gain / rows))
