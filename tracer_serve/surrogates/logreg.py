"""Multinomial logistic regression on the embedding."""

import warnings
from typing import Annotated, Self

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from tracer_serve.records import Inputs, Labels, Vectors
from tracer_serve.registry import surrogates
from tracer_serve.surrogates._arrays import encode, per_row, softmax, two_sided


@surrogates.register("logreg")
class LogReg:
    """Multinomial logistic regression, weakly regularised and unscaled: right for unit-norm embeddings.

    Parameters
    ----------
    C : inverse regularisation of the fit on `refit_rows` rows; folds use ``C * refit_rows / rows``
    max_iter : most L-BFGS iterations; about 50 suffice
    tol : gradient at which to stop; ten times tighter costs half as much again and moves no coverage

    Examples
    --------
    >>> inputs = Inputs(["a", "b"], np.eye(2, dtype=np.float32))
    >>> LogReg().fit(inputs, np.array(["x", "y"])).predict_proba(inputs).argmax(1).tolist()
    [0, 1]
    """

    cost = 1.0  # CPU of a fit in units of logreg's: cheap candidates are compared first

    def __init__(
        self,
        C: Annotated[float, Field(gt=0)] = 10.0,  # noqa: N803  # its name everywhere in this field
        max_iter: Annotated[int, Field(ge=1)] = 200,
        tol: Annotated[float, Field(gt=0)] = 2e-4,
    ) -> None:
        self.C, self.max_iter, self.tol = C, max_iter, tol
        self.refit_rows: int | None = None
        self.classes_: Labels = np.empty(0, np.str_)
        self.coef_: Vectors = np.empty((0, 0), np.float32)
        self.intercept_: Vectors = np.empty(0, np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on n rows; with a single class there is nothing to learn."""
        self.classes_, y = encode(labels)
        self.coef_ = np.zeros((len(self.classes_), inputs.embeddings.shape[1]), np.float32)
        self.intercept_ = np.zeros(len(self.classes_), np.float32)
        if len(self.classes_) > 1:
            strength = per_row(self.C, len(y), self.refit_rows)
            model = LogisticRegression(C=strength, tol=self.tol, max_iter=self.max_iter)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop is a regulariser, not a fault
                model.fit(np.asarray(inputs.embeddings, np.float32), y)
            # Of two classes scikit-learn fits the difference of the logits: half of it each way is the same model.
            half = 0.5 if len(self.classes_) == 2 else 1.0  # noqa: PLR2004
            self.coef_ = two_sided(half * model.coef_)
            self.intercept_ = two_sided(half * np.atleast_2d(model.intercept_).T).ravel()
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        return softmax(np.asarray(inputs.embeddings, np.float32) @ self.coef_.T + self.intercept_)
