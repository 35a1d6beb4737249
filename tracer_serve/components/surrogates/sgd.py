"""Multinomial logistic regression by averaged stochastic gradient descent, for millions of traces."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.types import Inputs, Ints, Labels, Vectors

_RATE, _MOST_RATE = 0.65, 100.0  # the curvature of k balanced classes is about 1/k, so the rate grows with k
_MEAN_ROWS = 50_000  # rows from which the mean vector and its spread are estimated


@surrogates.register("sgd")
class Sgd:
    """Log loss minimised by minibatch steps of constant size, averaged over the second half of them.

    The cost per row is constant, and more rows need fewer passes. The average of noisy iterates is as good as the
    optimum (Polyak and Juditsky 1992).

    Parameters
    ----------
    C : inverse regularisation of the fit on `refit_rows` rows
    learning_rate : step relative to what suits the number of classes and the size of the vectors
    epochs : passes over the rows
    max_visits : maximum number of row visits over all passes; at least one pass is made
    batch : rows per step
    seed : order of the rows

    Examples
    --------
    >>> inputs = Inputs(["a", "b"], np.eye(2, dtype=np.float32))
    >>> Sgd().fit(inputs, np.array(["x", "y"])).predict_proba(inputs).argmax(1).tolist()
    [0, 1]
    """

    cost = 0.3  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

    def __init__(
        self,
        *,
        C: Annotated[float, Field(gt=0)] = 10.0,  # noqa: N803  # its name everywhere in this field
        learning_rate: Annotated[float, Field(gt=0, le=100)] = 1.0,
        epochs: Annotated[int, Field(ge=1)] = 10,
        max_visits: Annotated[int, Field(ge=1)] = 2_000_000,
        batch: Annotated[int, Field(ge=1)] = 64,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.C, self.learning_rate, self.epochs = C, learning_rate, epochs
        self.max_visits, self.batch, self.seed = max_visits, batch, seed
        self.refit_rows: int | None = None
        self.classes_: Labels = np.empty(0, np.str_)
        self.coef_: Vectors = np.empty((0, 0), np.float32)
        self.intercept_: Vectors = np.empty(0, np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on n rows; a single class keeps its zero weights, and so all the probability."""
        self.classes_, y = encode(labels)
        x = np.asarray(inputs.embeddings, np.float32)
        sample = x[np.random.default_rng(self.seed).integers(len(x), size=_MEAN_ROWS)] if len(x) > _MEAN_ROWS else x
        mean = sample.mean(axis=0)
        spread = max(float(((sample - mean) ** 2).sum(axis=1).mean()), 1e-6)
        self.coef_, self.intercept_ = self._descend(x, y, mean, spread)
        self.intercept_ = self.intercept_ - mean @ self.coef_
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        return softmax(np.asarray(inputs.embeddings, np.float32) @ self.coef_ + self.intercept_)

    def _descend(self, x: Vectors, y: Ints, mean: Vectors, spread: float) -> tuple[Vectors, Vectors]:
        """Return the averaged weights (d, k) and intercepts (k,) for centred rows."""
        k, rng = len(self.classes_), np.random.default_rng(self.seed)
        coef, intercept = np.zeros((x.shape[1], k), np.float32), np.zeros(k, np.float32)
        mean_coef, mean_intercept = coef.copy(), intercept.copy()
        rate = self.learning_rate * min(_RATE * k, _MOST_RATE) / spread
        shrink = np.float32(max(0.0, 1 - rate / (self.C * (self.refit_rows or len(y)))))
        batches = -(-len(y) // self.batch)
        steps = max(batches, min(self.epochs * batches, self.max_visits // self.batch))
        for step in range(steps):
            if step % batches == 0:
                order = rng.permutation(len(y))
            rows = order[step % batches * self.batch :][: self.batch]
            part = x[rows] - mean
            error = softmax(part @ coef + intercept)
            error[np.arange(len(rows)), y[rows]] -= 1
            coef *= shrink
            coef -= np.float32(rate / len(rows)) * (part.T @ error)
            intercept -= np.float32(rate * spread / k / len(rows)) * error.sum(axis=0)
            averaged = step + 1 - steps // 2
            if averaged > 0:
                mean_coef += (coef - mean_coef) / np.float32(averaged)
                mean_intercept += (intercept - mean_intercept) / np.float32(averaged)
        return mean_coef, mean_intercept
