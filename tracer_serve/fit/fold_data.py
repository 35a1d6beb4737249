"""Rows divided into folds, with vectors and neighbours for each fold that exclude its held-out part."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Self, TypeVar, cast

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.ngram_rarity import cross_rarity
from tracer_serve.errors import FitError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.folds import random_folds
from tracer_serve.infra.parallel import at_once
from tracer_serve.policy.input_range import reads_texts
from tracer_serve.protocols import Embedder, Imitating
from tracer_serve.types import Floats, Inputs, Ints, Labels, Neighbours, Text, Vectors

T = TypeVar("T")
_FIRST_PART, _PART = 64, 512  # texts embedded between two reports of progress
_SAMPLE = 64  # texts from which the cost of embedding is measured


@dataclass(slots=True)
class Folds:
    """K splits of some rows, each with vectors and neighbours that are independent of its held-out part.

    Parameters
    ----------
    embedder : a frozen one is used once; a trainable one is fitted on each fold's training texts
    priced : whether to find out what embedding a text costs
    """

    rows: Rows
    embedder: Embedder
    count: int
    seed: int
    priced: bool = False
    fold: Ints = field(init=False)
    group: Ints = field(init=False)
    classes: Labels = field(init=False)
    codes: Ints = field(init=False)
    _imitated: bool = field(init=False, default=False)
    _rarity: dict[int, Floats] = field(init=False, default_factory=dict)
    _vectors: dict[int, Vectors] = field(init=False, default_factory=dict)
    _held_out: dict[int, tuple[Inputs, Neighbours]] = field(init=False, default_factory=dict)
    _embedding: dict[int, float] = field(init=False, default_factory=dict)
    _searching: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.group = self.rows.group
        self.fold = random_folds(self.group, self.count, self.seed)
        self.classes, self.codes = np.unique(self.rows.labels, return_inverse=True)

    def through(self, embedder: Embedder) -> "Folds":
        """Return the same splits of the same rows, with vectors of another embedder."""
        found = Folds(self.rows, embedder, self.count, self.seed, self.priced)
        found._rarity = self._rarity
        return found

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

    def inputs(self, fold: int, progress: Callable[[int], None] | None = None) -> Inputs:
        """Return the inputs of all rows for a model of this fold.

        Parameters
        ----------
        progress : called with the number of texts embedded so far
        """
        key = self._key(fold)
        if key not in self._vectors:
            embedder = self.embedder
            if embedder.trainable:
                # of its own: other threads of a worker may be at other folds
                embedder = fit_embedder(deepcopy(embedder), self.rows.take(self.split(fold)[0]))
            if self.priced:
                self._embedding[key] = price_of(embedder, self._sample())
            self._vectors[key] = np.concatenate(_in_parts(embedder.embed, self.rows.texts, progress))
        return Inputs(self.rows.texts, self._vectors[key])

    @property
    def prepared(self) -> bool:
        """Return whether `prepare` has nothing left to do."""
        if self.embedder.trainable:
            return self._imitated or getattr(self.embedder, "encoder", None) is None
        return -1 in self._vectors

    def load(self) -> None:
        """Warm up the encoder by embedding one text: the first use loads or exports its model."""
        texts = self.rows.texts[:1]
        if self.embedder.trainable:
            self._imitate(texts)
        else:
            self.embedder.embed(texts)

    def _imitate(self, texts: Sequence[Text]) -> None:
        cast("Imitating", self.embedder).imitate(texts)

    def _key(self, fold: int) -> int:
        return fold if self.embedder.trainable else -1

    def _sample(self) -> list[Text]:
        rows = np.random.default_rng(self.seed).permutation(len(self.rows))[:_SAMPLE]
        return [self.rows.texts[i] for i in rows]

    def prepare(self, progress: Callable[[int], None] | None = None) -> None:
        """Compute what all folds share, before threads or workers start: rarities, and vectors of a frozen embedder.

        Those may be the task's own, or of the encoder that it imitates.

        Parameters
        ----------
        progress : called with the number of texts embedded so far
        """
        self.rarity(0)
        if not self.embedder.trainable:
            self.inputs(0, progress)
        elif not self.prepared:
            _in_parts(self._imitate, self.rows.texts, progress)
            self._imitate(self.rows.unlabelled)
            self._imitated = True

    def held_out(self, fold: int) -> tuple[Inputs, Neighbours]:
        """Return the held-out rows and the nearest training rows of each; labels index `classes`."""
        if fold not in self._held_out:
            train, test = self.split(fold)
            every = self.inputs(fold)
            index = NeighbourIndex(seed=self.seed).fit(every.embeddings[train], self.codes[train])
            inputs, began = every.take(test), time.thread_time()
            near = index.near(inputs)
            self._searching[fold] = (time.thread_time() - began) / max(1, len(test))
            self._held_out[fold] = inputs, near
        inputs, near = self._held_out[fold]
        return Inputs(inputs.texts, inputs.embeddings, dict(inputs.searched)), near

    def rarity(self, fold: int) -> Floats:
        """Return how rare the character n-grams of each held-out row are among the training rows of a fold."""
        if not self._rarity:  # a dict, because all views share it
            texts = reads_texts(self.embedder)
            none = np.zeros(len(self.rows))
            self._rarity[0] = cross_rarity(self.rows.texts, self.fold, self.seed) if texts else none
        return self._rarity[0][self.split(fold)[1]]

    def price(self, fold: int) -> float:
        """Return the seconds that a text takes before any surrogate: of CPU; of an endpoint's embedder, of waiting.

        0 if they are not `priced`.
        """
        self.held_out(fold)
        return self._embedding[self._key(fold)] + self._searching[fold] if self.priced else 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the vectors instead of a frozen embedder, so that workers do not need its model."""
        state: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        # new ones: other threads may be adding to these
        state |= {"_vectors": {}, "_held_out": {}, "_embedding": {}, "_searching": {}}
        self.prepare()
        if not self.embedder.trainable:
            vectors = {-1: self._vectors[-1]}
            known = _Known(self.embedder.fingerprint)
            state |= {"_vectors": vectors, "_embedding": dict(self._embedding), "embedder": known}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def fit_embedder(embedder: Embedder, rows: Rows) -> Embedder:
    """Fit a trainable embedder on the rows' texts; one that imitates an encoder on the unlabelled texts too."""
    imitates = getattr(embedder, "encoder", None) is not None
    return embedder.fit([*rows.texts, *rows.unlabelled] if imitates else rows.texts)


def _in_parts(
    embed: Callable[[Sequence[Text]], T], texts: Sequence[Text], progress: Callable[[int], None] | None
) -> list[T]:
    """Embed in parts, to report progress; on a cluster at once, because it embeds the parts of one call together."""
    if progress is None or at_once(abreast=False) > 1:
        return [embed(texts)]
    ends = part_ends(len(texts))
    parts = []
    for start, end in pairwise([0, *ends]):
        parts.append(embed(texts[start:end]))
        progress(end)
    return parts


def part_ends(texts: int) -> list[int]:
    """Return where the parts end in which texts are embedded: small ones first, for an early estimate of the time.

    Examples
    --------
    >>> part_ends(2000)
    [64, 192, 448, 960, 1472, 1984, 2000]
    """
    ends = [0]
    while ends[-1] < texts:
        ends.append(min(texts, ends[-1] + min(_PART, ends[-1] + _FIRST_PART)))
    return ends[1:]


def price_of(embedder: Embedder, texts: Sequence[Text]) -> float:
    """Return the seconds per text that a fitted embedder takes for a batch: of CPU; of an endpoint, of waiting.

    It bypasses a cache, since new texts are not in it.
    """
    bare: Embedder = getattr(embedder, "uncached", embedder)
    clock = time.thread_time if bare.trainable else time.process_time  # other threads may be at other folds
    clock = time.perf_counter if getattr(bare, "remote", False) else clock
    bare.embed(texts[:2])  # a model is loaded on first use
    began = clock()
    bare.embed(texts)
    return (clock() - began) / max(1, len(texts))


@dataclass(slots=True)
class _Known:
    """Placeholder for a frozen embedder that has embedded all rows."""

    fingerprint: str
    trainable: bool = False

    def fit(self, texts: Sequence[Text]) -> Self:  # noqa: ARG002  # frozen
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        raise FitError(f"{len(texts):,} texts came without their vectors")
