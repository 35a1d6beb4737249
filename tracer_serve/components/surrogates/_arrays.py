"""Helpers of the surrogates: label encoding, softmax and the per-row regularisation of a fold."""

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
    """Return one row of weights per class; scikit-learn stores a single row for two classes."""
    both = np.concatenate([-weights, weights]) if len(weights) == 1 else weights
    return np.ascontiguousarray(both, dtype=np.float32)


def per_row(strength: float, rows: int, refit_rows: int | None) -> float:
    """Scale an inverse regularisation (C) so that a fold is regularised per row like the refit on all rows.

    `strength` applies to the refit on `refit_rows` rows; None means that this fit is the refit (gate.md, section 3).
    """
    return strength * (refit_rows or rows) / rows
