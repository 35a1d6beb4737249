"""The probability of a protected label as a rank, which a limit chosen on one model can carry over to another.

Models of folds and the model that serves differ in sharpness: on 8,000 tweets the medians of the probability of a label
of 6 % lay between .017 and .049, and one limit vetoed a third of one fold and four fifths of another. So a probability
is ranked among what the same model says of its own training rows with other labels. The rank does not change with the
sharpness, and the model that serves is asked about its training rows alike.
"""

from collections.abc import Sequence

import numpy as np

from tracer_serve.protocols import Surrogate
from tracer_serve.types import Floats, Inputs, Ints, Labels, Vectors

_SAMPLE = 2_000  # training rows that a model is asked about


def risk_references(
    surrogate: Surrogate, inputs: Inputs, labels: Labels, protect: Sequence[str], seed: int = 0
) -> list[Floats]:
    """Return per protected label the probabilities of it over training rows with other labels, ascending.

    Parameters
    ----------
    inputs, labels : what the surrogate was fitted on, n rows; a sample of them is asked about

    Returns
    -------
    Empty for a label that the surrogate does not know.
    """
    if not protect:
        return []
    rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[:_SAMPLE])
    proba, known = surrogate.predict_proba(inputs.take(rows)), [str(name) for name in surrogate.classes_]
    return [
        np.sort(proba[labels[rows] != label, known.index(label)]) if label in known else np.empty(0)
        for label in protect
    ]


def risk_ranks(references: Sequence[Floats], proba: Vectors, protected: Ints) -> Vectors:
    """Return the rank from 0 to 1 of each row's probability of each protected label, shape (p, n).

    Parameters
    ----------
    proba : of a model's rows, shape (n, k)
    protected : column of each protected label, shape (p,); the rank is 0 if its reference is empty
    """
    ranks = np.zeros((len(protected), len(proba)), np.float32)
    for number, (reference, column) in enumerate(zip(references, protected, strict=True)):
        if len(reference):
            ranks[number] = np.searchsorted(reference, proba[:, column], side="right") / len(reference)
    return ranks


def risk_limit(reference: Floats, rank: float) -> float:
    """Return the probability whose rank is the largest that does not exceed `rank`; inf if no rank exceeds it.

    Examples
    --------
    >>> reference = np.array([0.1, 0.2, 0.3, 0.4])
    >>> risk_limit(reference, 0.5) < 0.3, risk_limit(reference, 1.0)
    (True, inf)
    """
    if not np.isfinite(rank) or not len(reference):
        return float("inf")
    place = int(np.floor(rank * len(reference) + 1e-6))
    return float(np.nextafter(reference[place], -np.inf)) if place < len(reference) else float("inf")
