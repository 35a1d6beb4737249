"""Multinomial logistic regression on the embedding."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, per_row, softmax
from tracer_serve.components.surrogates._softmax_regression import fit_softmax
from tracer_serve.types import Inputs, Labels, Vectors


@surrogates.register("logreg")
class LogReg:
    """Multinomial logistic regression, weakly regularised and unscaled: right for unit-norm embeddings.

    Parameters
    ----------
    C : inverse regularisation of the fit on `refit_rows` rows, on the weights of every class; folds use
        ``C * refit_rows / rows``
    max_iter : maximum number of L-BFGS iterations; about 30 suffice
    tol : gradient at which to stop; a tenth doubles the time and does not change the coverage

    Examples
    --------
    >>> inputs = Inputs(["a", "b"], np.eye(2, dtype=np.float32))
    >>> LogReg().fit(inputs, np.array(["x", "y"])).predict_proba(inputs).argmax(1).tolist()
    [0, 1]
    """

    cost = 1.0  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

    def __init__(
        self,
        C: Annotated[float, Field(gt=0)] = 10.0,  # noqa: N803  # its name everywhere in this field
        max_iter: Annotated[int, Field(ge=1)] = 200,
        tol: Annotated[float, Field(gt=0)] = 1e-3,
    ) -> None:
        self.C, self.max_iter, self.tol = C, max_iter, tol
        self.refit_rows: int | None = None
        self.classes_: Labels = np.empty(0, np.str_)
        self.coef_: Vectors = np.empty((0, 0), np.float32)
        self.intercept_: Vectors = np.empty(0, np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on n rows; with a single class there is nothing to learn."""
        self.classes_, y = encode(labels)
        x, k = np.asarray(inputs.embeddings, np.float32), len(self.classes_)
        self.coef_, self.intercept_ = np.zeros((k, x.shape[1]), np.float32), np.zeros(k, np.float32)
        if k > 1:
            strength = per_row(self.C, len(y), self.refit_rows)
            self.coef_, self.intercept_ = fit_softmax(x, y, k, strength=strength, tol=self.tol, max_iter=self.max_iter)
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        return softmax(np.asarray(inputs.embeddings, np.float32) @ self.coef_.T + self.intercept_)
