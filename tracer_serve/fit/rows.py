"""What a fit works on: labelled rows, and their vectors per fold."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from tracer_serve.errors import FitError
from tracer_serve.fit.folds import burst_groups, random_folds
from tracer_serve.neighbours import NeighbourIndex
from tracer_serve.protocols import Embedder
from tracer_serve.records import Bools, Inputs, Ints, Labels, Neighbours, Text, Vectors

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled traces.

    Parameters
    ----------
    texts : n inputs
    labels : the teacher's labels, shape (n,)
    calibrates : rows that form a fair sample of traffic and may enter a certificate; the others only train
        (gate.md, section 5), shape (n,)
    """

    texts: Sequence[Text]
    labels: Labels
    calibrates: Bools

    @classmethod
    def of(cls, texts: Sequence[Text], labels: Sequence[str] | Labels) -> "Rows":
        """Make rows that all calibrate."""
        return cls(texts, np.asarray(labels, dtype=np.str_), np.ones(len(texts), bool))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Ints) -> "Rows":
        """Return the rows given by index."""
        return Rows([self.texts[i] for i in rows], self.labels[rows], self.calibrates[rows])


@dataclass(slots=True)
class Folds:
    """The K splits of some rows, each with vectors and neighbours that know nothing of the held-out part.

    Parameters
    ----------
    embedder : a frozen one is asked once; a trainable one is fitted anew on each fold's training texts
    """

    rows: Rows
    embedder: Embedder
    count: int
    seed: int
    fold: Ints = field(init=False)
    group: Ints = field(init=False)
    classes: Labels = field(init=False)
    codes: Ints = field(init=False)
    _vectors: dict[int, Vectors] = field(init=False, default_factory=dict)
    _neighbours: dict[int, Neighbours] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.group = burst_groups(self.rows.texts)
        self.fold = random_folds(self.rows.texts, self.count, self.seed)
        self.classes, self.codes = np.unique(self.rows.labels, return_inverse=True)

    def split(self, fold: int) -> tuple[Ints, Ints]:
        """Return the indices of the training and of the held-out rows of a fold."""
        held_out = self.fold == fold
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def take(self, rows: Ints) -> "Folds":
        """Return new folds of the rows given by index; a frozen embedder is not asked again."""
        some = Folds(self.rows.take(rows), self.embedder, self.count, self.seed)
        if not self.embedder.trainable:
            some._vectors[-1] = self.inputs(0).embeddings[rows]
        return some

    def inputs(self, fold: int) -> Inputs:
        """Return all rows as a model of this fold may see them."""
        key = fold if self.embedder.trainable else -1
        if key not in self._vectors:
            embedder = self.embedder
            if embedder.trainable:
                # of its own: other threads of a worker may be at other folds
                embedder = deepcopy(embedder).fit([self.rows.texts[i] for i in self.split(fold)[0]])
            self._vectors[key] = embedder.embed(self.rows.texts)
        return Inputs(self.rows.texts, self._vectors[key])

    def neighbours(self, fold: int) -> Neighbours:
        """Return the nearest training rows of each held-out row; labels index `classes`."""
        if fold not in self._neighbours:
            train, test = self.split(fold)
            vectors = self.inputs(fold).embeddings
            index = NeighbourIndex(seed=self.seed).fit(vectors[train], self.codes[train])
            self._neighbours[fold] = index.query(vectors[test])
        return self._neighbours[fold]

    def __getstate__(self) -> dict[str, Any]:
        """Travel with the vectors instead of a frozen embedder: workers need not have its model."""
        state: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        state |= {"_vectors": {}, "_neighbours": {}}  # which other threads may be adding to
        if not self.embedder.trainable:
            vectors = {-1: self.inputs(0).embeddings}
            state |= {"_vectors": vectors, "embedder": _Known(self.embedder.fingerprint)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


@dataclass(slots=True)
class _Known:
    """Stands for a frozen embedder that has embedded everything."""

    fingerprint: str
    trainable: bool = False

    def fit(self, texts: Sequence[Text]) -> Self:  # noqa: ARG002  # frozen
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        raise FitError(f"{len(texts):,} texts came without their vectors")
