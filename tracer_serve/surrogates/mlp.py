"""A neural network with one hidden layer on the embedding."""

from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.records import Inputs, Ints, Labels, Vectors
from tracer_serve.registry import surrogates
from tracer_serve.surrogates._arrays import encode, softmax

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier

_INPUT_SIZE = 0.25  # root mean square of what the network sees


@surrogates.register("mlp")
class Mlp:
    """One hidden ReLU layer, fitted by Adam until a random tenth of the rows stops improving.

    Parameters
    ----------
    hidden : width of the hidden layer
    alpha : L2 penalty
    learning_rate : of Adam
    batch : rows per step
    max_epochs : most passes over the rows
    patience : passes without a better log loss after which to stop and return to the best
    seed : of the initial weights, the order of rows and the tenth held out
    """

    cost = 2.0  # CPU of a fit in units of logreg's: cheap candidates are compared first

    def __init__(
        self,
        *,
        hidden: Annotated[int, Field(ge=1)] = 256,
        alpha: Annotated[float, Field(ge=0)] = 1e-4,
        learning_rate: Annotated[float, Field(gt=0)] = 2e-3,
        batch: Annotated[int, Field(ge=1)] = 128,
        max_epochs: Annotated[int, Field(ge=1)] = 60,
        patience: Annotated[int, Field(ge=1)] = 2,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.hidden, self.alpha, self.learning_rate, self.batch = hidden, alpha, learning_rate, batch
        self.max_epochs, self.patience, self.seed = max_epochs, patience, seed
        self.classes_: Labels = np.empty(0, np.str_)
        self.hidden_: Vectors = np.empty((0, 0), np.float32)
        self.hidden_bias_: Vectors = np.empty(0, np.float32)
        self.output_: Vectors = np.empty((0, 0), np.float32)
        self.output_bias_: Vectors = np.empty(0, np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on n rows; with a single class there is nothing to learn."""
        self.classes_, y = encode(labels)
        x = np.asarray(inputs.embeddings, np.float32)
        k = len(self.classes_)
        self.hidden_, self.hidden_bias_ = np.zeros((x.shape[1], 1), np.float32), np.zeros(1, np.float32)
        self.output_, self.output_bias_ = np.zeros((1, k), np.float32), np.zeros(k, np.float32)
        if k > 1:
            self._descend(x, y)
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        return self._forward(np.asarray(inputs.embeddings, np.float32))

    def _descend(self, x: Vectors, y: Ints) -> None:
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415  # a second, which serving is spared

        # scikit-learn's own early stopping stratifies and so refuses a class with one row
        order = np.random.default_rng(self.seed).permutation(len(y))
        out, rest = np.split(order, [len(y) // 10])
        model = MLPClassifier(
            (self.hidden,),
            alpha=self.alpha,
            learning_rate_init=self.learning_rate,
            batch_size=min(self.batch, len(rest)),
            random_state=self.seed,
        )
        # entries of a unit vector are tiny and Adam's steps are not: at this size a few passes suffice
        scale = np.float32(_INPUT_SIZE / max(float(np.sqrt(np.mean(x[rest] ** 2))), 1e-6))
        best, since = np.inf, 0
        for _ in range(self.max_epochs):
            # all classes are named because one may be absent from the rows that are not held out
            model.partial_fit(scale * x[rest], y[rest], classes=np.arange(len(self.classes_)))
            before = self.hidden_, self.hidden_bias_, self.output_, self.output_bias_
            self._take(model, scale)
            loss = self._loss(x[out], y[out]) if len(out) else model.loss_
            if loss < best:
                best, since = loss, 0
                continue
            self.hidden_, self.hidden_bias_, self.output_, self.output_bias_ = before
            since += 1
            if since == self.patience:
                break

    def _take(self, model: "MLPClassifier", scale: np.float32) -> None:
        """Copy the weights; of two classes scikit-learn has one output, the logit of the second."""
        self.hidden_, self.output_ = (np.array(weights, np.float32) for weights in model.coefs_)
        self.hidden_bias_, self.output_bias_ = (np.array(bias, np.float32) for bias in model.intercepts_)
        self.hidden_ *= scale
        if len(self.output_bias_) == 1:
            sides = np.array([-0.5, 0.5], np.float32)
            self.output_, self.output_bias_ = self.output_ * sides, self.output_bias_ * sides

    def _forward(self, x: Vectors) -> Vectors:
        hidden = np.maximum(x @ self.hidden_ + self.hidden_bias_, 0)
        return softmax(hidden @ self.output_ + self.output_bias_)

    def _loss(self, x: Vectors, y: Ints) -> float:
        return float(-np.log(self._forward(x)[np.arange(len(y)), y] + 1e-9).mean())
