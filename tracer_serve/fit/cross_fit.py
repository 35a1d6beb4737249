"""Out-of-fold predictions of a surrogate."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from tracer_serve.components.truncation import truncated
from tracer_serve.fit.fold_data import Folds
from tracer_serve.fit.risk_rank import risk_ranks, risk_references
from tracer_serve.gate.scope_guard import scope_scores
from tracer_serve.infra.parallel import HEAVY, spread
from tracer_serve.policy.stage import gather
from tracer_serve.protocols import Acceptor, RowScaled, Surrogate
from tracer_serve.types import Bools, Evidence, Floats, Inputs, Ints, Labels, Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """What each of m members of a blend says on its own of n rows.

    Parameters
    ----------
    top : class index of its most probable label, shape (m, n)
    probability : of that label, float32, shape (m, n)
    """

    top: Ints
    probability: Vectors

    @classmethod
    def of(cls, members: Vectors) -> "Votes | None":
        """Return the votes of probabilities (m, n, k); None if there is one member."""
        return cls(members.argmax(axis=2), members.max(axis=2)) if len(members) > 1 else None

    def take(self, rows: Ints | Bools) -> "Votes":
        """Return the rows given by index or mask."""
        return Votes(self.top[:, rows], self.probability[:, rows])


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """One surrogate's out-of-fold results, n rows.

    Parameters
    ----------
    top, second : class indices of the two most probable labels, shape (n,)
    agreed : whether the label is the teacher's
    scope : scope score
    truncated : whether the surrogate reads only a part of the text
    features : per acceptor, shape (n, f)
    cpu_ms : CPU of predicting one row in batches, without embedding and nearest rows
    embed_ms : of these, where the folds are `priced`
    view : place in `Spec.embedders` of what its surrogate sees through
    risk : rank of the probability of each protected label (`fit.risk_rank`), shape (p, n)
    votes : of a blend's members
    """

    top: Ints
    second: Ints
    agreed: Bools
    scope: Floats
    truncated: Bools
    features: tuple[Vectors, ...]
    cpu_ms: float = 0.0
    embed_ms: float = 0.0
    view: int = 0
    risk: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    votes: Votes | None = None


def cross_fit(
    make: Callable[[], Surrogate],
    acceptors: Sequence[Acceptor],
    folds: Folds,
    tick: Callable[[], None],
    refit_rows: int | None = None,
    *,
    protect: Sequence[str] = (),
) -> OutOfFold:
    """Fit a surrogate once per fold and collect its predictions on the held-out rows.

    Parameters
    ----------
    refit_rows : rows of the final fit, so that no fold is regularised more than it; default: the rows of `folds`
    tick : called after each fold
    protect : labels whose probability is wanted
    """
    n, light = len(folds.rows), getattr(make(), "cost", 1.0) < HEAVY
    clock = time.thread_time if light else time.process_time
    job = partial(_Job, make, tuple(acceptors), tuple(protect), refit_rows or n, clock)
    found: list[_HeldOut] = []
    folds.prepare()
    with _quiet():  # around all threads, which share one set of warning filters
        for part in spread(_fit_fold, folds, [job(int(fold)) for fold in np.unique(folds.fold)], abreast=light):
            found.append(part)
            tick()
    found.sort(key=lambda part: part.fold)
    back = np.argsort(np.concatenate([folds.split(part.fold)[1] for part in found]))
    top, second, scope, cut = (
        np.concatenate([getattr(part, name) for part in found])[back]
        for name in ("top", "second", "scope", "truncated")
    )
    features = tuple(np.concatenate(part)[back] for part in zip(*(part.features for part in found), strict=True))
    risk = np.concatenate([part.risk for part in found], axis=1)[:, back]
    cpu_ms, embed_ms = 1e3 * sum(part.cpu_s for part in found) / n, 1e3 * np.mean([part.embed_s for part in found])
    votes = _joined([part.votes for part in found if part.votes is not None])
    return OutOfFold(
        top=top,
        second=second,
        agreed=top == folds.codes,
        scope=scope,
        truncated=cut,
        features=features,
        cpu_ms=cpu_ms,
        embed_ms=float(embed_ms),
        risk=risk,
        votes=None if votes is None else votes.take(back),
    )


def class_codes(classes: Labels, labels: Sequence[str]) -> Ints:
    """Return the index of each label among the sorted classes (k,), -1 where it is not among them."""
    return np.array([int(np.searchsorted(classes, x)) if x in classes else -1 for x in labels], np.int64)


def _joined(parts: Sequence[Votes]) -> Votes | None:
    """Return the votes of all folds, in the order of the folds."""
    if not parts:
        return None
    return Votes(*(np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("top", "probability")))


@dataclass(frozen=True, slots=True)
class _Job:
    """One fold's fit, and the clock of its CPU: a light one has a thread, a heavy one the process."""

    make: Callable[[], Surrogate]
    acceptors: tuple[Acceptor, ...]
    protect: tuple[str, ...]
    refit_rows: int
    clock: Callable[[], float]
    fold: int


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Predictions of one fold's model on its m held-out rows, as in `OutOfFold`.

    Parameters
    ----------
    cpu_s : CPU seconds of saying it
    embed_s : seconds per row before that, as in `Folds.price`
    """

    fold: int
    top: Ints
    second: Ints
    scope: Floats
    truncated: Bools
    features: tuple[Vectors, ...]
    risk: Vectors
    cpu_s: float
    embed_s: float
    votes: Votes | None


def _fit_fold(folds: Folds, job: _Job) -> _HeldOut:
    """Fit without a fold and ask about it; runs wherever `spread` lets it."""
    train, _ = folds.split(job.fold)
    surrogate = _fit(job.make(), folds.inputs(job.fold).take(train), folds.rows.labels[train], job.refit_rows)
    asked, near = folds.held_out(job.fold)
    began = job.clock()
    evidence = gather(surrogate, asked, near)
    cpu = job.clock() - began
    seen = aligned(evidence, surrogate.classes_, folds.classes)
    scope = scope_scores(seen.proba, seen.neighbours.similarity, folds.rarity(job.fold))
    cut = truncated(surrogate, asked.texts)
    features = tuple(acceptor.features(seen) for acceptor in job.acceptors)
    inputs, labels = folds.inputs(job.fold).take(train), folds.rows.labels[train]
    references = risk_references(surrogate, inputs, labels, job.protect)
    risk = risk_ranks(references, seen.proba, class_codes(folds.classes, job.protect))
    top, second = top_two(seen.proba)
    return _HeldOut(
        fold=job.fold,
        top=top,
        second=second,
        scope=scope,
        truncated=cut,
        features=features,
        risk=risk,
        cpu_s=cpu,
        embed_s=folds.price(job.fold),
        votes=Votes.of(seen.members),
    )


def fit_surrogate(surrogate: Surrogate, inputs: Inputs, labels: Labels, refit_rows: int) -> Surrogate:
    """Fit on these rows, regularised as the final fit on `refit_rows` rows will be."""
    with _quiet():
        return _fit(surrogate, inputs, labels, refit_rows)


def _fit(surrogate: Surrogate, inputs: Inputs, labels: Labels, refit_rows: int) -> Surrogate:
    if isinstance(surrogate, RowScaled):
        surrogate.refit_rows = refit_rows
    return surrogate.fit(inputs, labels)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress expected warnings of scikit-learn: many labels with one row each, and few passes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def aligned(evidence: Evidence, present: Labels, classes: Labels) -> Evidence:
    """Return evidence with columns for all `classes`; a class without rows in the fold gets probability 0."""
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
