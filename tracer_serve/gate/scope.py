"""The scope guard: a row unlike anything seen is deferred, also where accept-all certifies (gate.md, section 7)."""

import numpy as np

from tracer_serve.records import Floats

_COSINE_WEIGHT = 5.0  # measured on CLINC150: AUROC .976 against .961 for the top probability alone


def scope_scores(proba: Floats, similarity: Floats) -> Floats:
    """Return log(top probability) + 5 x mean cosine to the nearest training rows; higher is more in scope.

    Parameters
    ----------
    proba : the surrogate's probabilities, shape (n, k)
    similarity : cosines to the m nearest training rows, -inf where there are fewer, shape (n, m)

    Returns
    -------
    Shape (n,); -inf for a row without any neighbour, NaN where a probability is NaN.
    """
    known = np.isfinite(similarity)
    total = np.where(known, similarity, 0.0).sum(axis=1, dtype=np.float64)
    count = known.sum(axis=1)
    mean = np.where(count > 0, total / np.maximum(count, 1), -np.inf)
    top: Floats = np.log(np.maximum(proba.max(axis=1).astype(np.float64), np.finfo(np.float64).tiny))
    return top + _COSINE_WEIGHT * mean


def scope_threshold(scores: Floats, keep: float) -> float:
    """Return the largest threshold that at least the share `keep` of the finite out-of-fold scores reaches.

    -inf for ``keep = 1`` (the guard is off) and where there is no score to learn from. A row passes where its scope
    score is at least the threshold.

    Examples
    --------
    >>> scope_threshold(np.arange(100.0), 0.98)
    2.0
    """
    finite = np.sort(scores[np.isfinite(scores)])
    if keep >= 1.0 or not len(finite):
        return -np.inf
    return float(finite[int((1.0 - keep) * len(finite) + 1e-9)])
