"""Linear support vector machine on n-grams of the text, which distinguishes words that embeddings blur."""

import threading
import warnings
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.hashed_ngrams import Grams, count_ngrams, learn_vocabulary, weigh
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, per_row, softmax, two_sided
from tracer_serve.types import Inputs, Labels, Vectors

# liblinear has one random generator per process: folds fitted in parallel would share it, and the same seed would give
# another model each time. Warning filters are per process as well.
_LIBLINEAR = threading.Lock()


@surrogates.register("ngram_svc")
class NgramSvc:
    """One-against-rest squared-hinge SVM on tf-idf of word 1-2-grams and character 3-5-grams; no embedding is used.

    The grams of the two sides of a pair are different features. Probabilities are a softmax of the decision values
    at a fixed temperature; `blend` learns its own temperature.

    Parameters
    ----------
    C : penalty of the fit on `refit_rows` rows; folds use ``C * refit_rows / rows``
    temperature : decision value that makes a class e times more probable
    min_rows : n-grams in fewer texts are dropped
    max_features : maximum number of n-grams, the most common ones
    max_iter : passes over the data; more do not change coverage
    max_rows : maximum number of rows used, a uniform sample of more
    seed : seed of that sample and of the order of the passes
    """

    cost = 2.0  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

    def __init__(
        self,
        *,
        C: Annotated[float, Field(gt=0)] = 1.5,  # noqa: N803  # its name everywhere in this field
        temperature: Annotated[float, Field(gt=0)] = 0.15,
        min_rows: Annotated[int, Field(ge=1)] = 2,
        max_features: Annotated[int, Field(ge=1)] = 65_536,
        max_iter: Annotated[int, Field(ge=1)] = 5,
        max_rows: Annotated[int, Field(ge=1)] = 100_000,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.C, self.temperature, self.min_rows, self.max_features = C, temperature, min_rows, max_features
        self.max_iter, self.max_rows, self.seed = max_iter, max_rows, seed
        self.refit_rows: int | None = None
        self.classes_: Labels = np.empty(0, np.str_)
        self.grams_: Grams = np.empty(0, np.uint32)
        self.idf_: Vectors = np.empty(0, np.float32)
        self.coef_: Vectors = np.empty((0, 0), np.float32)
        self.intercept_: Vectors = np.empty(0, np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on the texts of n rows; with a single class there is nothing to learn."""
        self.classes_, y = encode(labels)
        texts = inputs.texts
        if len(y) > self.max_rows:
            keep = np.sort(np.random.default_rng(self.seed).choice(len(y), self.max_rows, replace=False))
            texts, y = [texts[i] for i in keep], y[keep]
        counts = count_ngrams(texts)
        self.grams_, self.idf_ = learn_vocabulary(counts, len(y), self.min_rows, self.max_features)
        self.coef_ = np.zeros((len(self.grams_), len(self.classes_)), np.float32)
        self.intercept_ = np.full(
            len(self.classes_), -1, np.float32
        )  # labels missing from the sample are never predicted
        if len(set(y.tolist())) > 1:
            from scipy.sparse import csr_matrix  # noqa: PLC0415
            from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  # slow to import, and serving does not need it
            from sklearn.svm import LinearSVC  # noqa: PLC0415

            refit_rows = self.refit_rows and min(self.refit_rows, self.max_rows)
            model = LinearSVC(C=per_row(self.C, len(y), refit_rows), max_iter=self.max_iter, random_state=self.seed)
            weights = csr_matrix(weigh(counts, len(y), self.grams_, self.idf_), shape=(len(y), len(self.grams_)))
            with _LIBLINEAR, warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # few passes are intended
                model.fit(weights, y)
            self.coef_[:, model.classes_] = two_sided(model.coef_).T  # row-major, because a text reads whole rows
            self.intercept_[model.classes_] = two_sided(np.atleast_2d(model.intercept_).T).ravel()
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        value, column, starts = weigh(count_ngrams(inputs.texts), len(inputs), self.grams_, self.idf_)
        # gathering the rows of a few hundred n-grams is faster than building a scipy matrix
        rows = [value[i:j] @ self.coef_[column[i:j]] for i, j in pairwise(starts.tolist())]
        return softmax((np.array(rows).reshape(-1, len(self.classes_)) + self.intercept_) / self.temperature)
