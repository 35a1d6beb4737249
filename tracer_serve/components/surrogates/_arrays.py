"""What the surrogates share: label encoding, softmax and the per-row regularisation of a fold."""

import numpy as np

from tracer_serve.types import Floats, Ints, Labels, Vectors


def encode(labels: Labels) -> tuple[Labels, Ints]:
    """Return the sorted classes and each label's index in them."""
    classes, index = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
    return classes, index


def softmax(logits: Floats) -> Vectors:
    """Return float32 probabilities of logits (n, k), each row summing to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba: Vectors = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32, copy=False)
    return proba


def two_sided(weights: Floats) -> Vectors:
    """Give scikit-learn's single row for two classes its mirror image, so that row j always speaks for class j."""
    both = np.concatenate([-weights, weights]) if len(weights) == 1 else weights
    return np.ascontiguousarray(both, dtype=np.float32)


def per_row(strength: float, rows: int, refit_rows: int | None) -> float:
    """Scale an inverse regularisation that multiplies a sum over rows (C) so that a fold is as sharp as the refit.

    `strength` holds for the refit on `refit_rows`; None: this fit is that refit (gate.md, section 3).
    """
    return strength * (refit_rows or rows) / rows
