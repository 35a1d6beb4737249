"""Out-of-fold predictions: what each surrogate says of rows that it has not seen."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tracer_serve.fit.rows import Folds
from tracer_serve.gate.scope import scope_scores
from tracer_serve.protocols import Acceptor, RowScaled, Surrogate
from tracer_serve.records import Bools, Evidence, Floats, Inputs, Ints, Labels, Vectors
from tracer_serve.stages import gather


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """One surrogate's out-of-fold results, n rows.

    Parameters
    ----------
    top, second : class indices of the two most probable labels, shape (n,)
    agreed : whether the label is the teacher's
    scope : scope score
    features : per acceptor, shape (n, f)
    cpu_ms : CPU of predicting one row in batches, without embedding and neighbours
    """

    top: Ints
    second: Ints
    agreed: Bools
    scope: Floats
    features: tuple[Vectors, ...]
    cpu_ms: float = 0.0


def cross_fit(
    make: Callable[[], Surrogate],
    acceptors: Sequence[Acceptor],
    folds: Folds,
    tick: Callable[[], None],
    refit_rows: int | None = None,
) -> OutOfFold:
    """Fit a surrogate once per fold and collect what it says of the held-out rows.

    Parameters
    ----------
    refit_rows : rows of the final fit, so that no fold is regularised more than it; default: the rows of `folds`
    tick : called after each fold
    """
    n = len(folds.rows)
    top, second = np.zeros(n, np.int64), np.zeros(n, np.int64)
    scope = np.zeros(n)
    parts: list[list[Vectors]] = [[] for _ in acceptors]
    order: list[Ints] = []
    cpu = 0.0
    for fold in range(folds.count):
        train, test = folds.split(fold)
        if not len(test):
            continue
        inputs = folds.inputs(fold)
        surrogate = fit_surrogate(make(), inputs.take(train), folds.rows.labels[train], refit_rows or n)
        near, asked = folds.neighbours(fold), inputs.take(test)
        cpu -= time.process_time()
        evidence = gather(surrogate, asked, near)
        cpu += time.process_time()
        seen = aligned(evidence, surrogate.classes_, folds.classes)
        top[test], second[test] = top_two(seen.proba)
        scope[test] = scope_scores(seen.proba, seen.neighbours.similarity)
        for part, acceptor in zip(parts, acceptors, strict=True):
            part.append(acceptor.features(seen))
        order.append(test)
        tick()
    back = np.argsort(np.concatenate(order))
    features = tuple(np.concatenate(part)[back] for part in parts)
    return OutOfFold(top, second, top == folds.codes, scope, features, 1e3 * cpu / n)


def fit_surrogate(surrogate: Surrogate, inputs: Inputs, labels: Labels, refit_rows: int) -> Surrogate:
    """Fit on these rows, regularised as the final fit on `refit_rows` rows will be."""
    if isinstance(surrogate, RowScaled):
        surrogate.refit_rows = refit_rows
    with warnings.catch_warnings():
        # scikit-learn suspects a regression where most labels have one row; few traces are no mistake here
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        return surrogate.fit(inputs, labels)


def aligned(evidence: Evidence, present: Labels, classes: Labels) -> Evidence:
    """Return evidence with columns for all `classes`; a class that the fold has not seen gets probability 0."""
    if len(present) == len(classes):
        return evidence
    columns = np.searchsorted(classes, present)
    m, n, _ = evidence.members.shape
    proba = np.zeros((n, len(classes)), np.float32)
    proba[:, columns] = evidence.proba
    members = np.zeros((m, n, len(classes)), np.float32)
    members[:, :, columns] = evidence.members
    return Evidence(evidence.inputs, proba, members, evidence.neighbours)


def top_two(proba: Vectors) -> tuple[Ints, Ints]:
    """Return the indices of the most and the second most probable class; the same one where there is one class."""
    top = proba.argmax(axis=1)
    if proba.shape[1] == 1:
        return top, top
    rest = proba.copy()
    rest[np.arange(len(top)), top] = -np.inf
    return top, rest.argmax(axis=1)


def cross_score(acceptor: Callable[[], Acceptor], features: Vectors, agreed: Bools, fold: Ints) -> Floats:
    """Score each row by an acceptor fitted on the other folds' rows; shape (n,)."""
    score = np.full(len(features), np.nan)
    for held_out in np.unique(fold):
        test = fold == held_out
        score[test] = acceptor().fit(features[~test], agreed[~test]).score(features[test])
    return score
