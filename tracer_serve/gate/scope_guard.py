"""Scope guard: out-of-distribution detection that defers unfamiliar rows (gate.md, section 7)."""

import numpy as np

from tracer_serve.types import Bools, Floats

RARITY_WEIGHT = 0.75  # CLINC150, MiniLM: AUROC .965, and 18 % of foreign texts pass without it, under 1 % with it
COSINE_WEIGHT = 5.0  # measured on CLINC150: AUROC .976 against .961 for the top probability alone


def scope_scores(proba: Floats, similarity: Floats, rarity: Floats) -> Floats:
    """Return log(top probability) + 5 x mean cosine to the nearest rows - 0.75 x rarity; higher is more in scope.

    Parameters
    ----------
    proba : the surrogate's probabilities, shape (n, k)
    similarity : cosines to the m nearest training rows, -inf if there are fewer, shape (n, m)
    rarity : mean log inverse document frequency of the text's character n-grams, shape (n,)

    Returns
    -------
    Shape (n,); -inf for a row without any neighbour; NaN if a probability is NaN.
    """
    known = np.isfinite(similarity)
    total = np.where(known, similarity, 0.0).sum(axis=1, dtype=np.float64)
    count = known.sum(axis=1)
    mean = np.where(count > 0, total / np.maximum(count, 1), -np.inf)
    top: Floats = np.log(np.maximum(proba.max(axis=1).astype(np.float64), np.finfo(np.float64).tiny))
    return top + COSINE_WEIGHT * mean - RARITY_WEIGHT * rarity


def scope_threshold(scores: Floats, keep: float) -> float:
    """Return the largest threshold that at least the share `keep` of the finite out-of-fold scores reaches.

    -inf for ``keep = 1`` (the guard is off) or without any finite score. A row passes where its scope
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


def scope_thresholds(scores: Floats, answers: Bools, keep: float) -> Floats:
    """Return a threshold for each stage of a cascade, such that the share `keep` passes at least one of them.

    A row that is out of scope for one stage may pass another stage's guard, so with each guard at `keep` more rows
    would pass, out-of-scope rows above all. Each guard is therefore stricter, and all let the same share of their rows
    pass.

    Parameters
    ----------
    scores : out-of-fold scope scores, shape (s, n)
    answers : whether the stage would answer a row that it lets pass, shape (s, n)

    Returns
    -------
    Shape (s,); for a single stage that answers all rows, the result of `scope_threshold`.

    Examples
    --------
    >>> scores = np.stack([np.arange(100.0), np.arange(100.0)[::-1]])
    >>> scope_thresholds(scores, np.ones((2, 100), bool), 0.9)
    array([55., 55.])
    """
    usable = np.isfinite(scores)
    known = [np.sort(one[finite]) for one, finite in zip(scores, usable, strict=True)]
    rank = [np.searchsorted(own, one, side="right") / max(1, len(own)) for own, one in zip(known, scores, strict=True)]
    cut = scope_threshold(np.where(answers & usable, rank, -np.inf).max(axis=0), keep)
    if not np.isfinite(cut):
        return np.full(len(scores), -np.inf)
    place = [int(np.ceil(cut * len(own) - 1e-9)) - 1 for own in known]  # a product of roundings may lie above it
    return np.array([own[max(0, i)] if len(own) else -np.inf for own, i in zip(known, place, strict=True)])
