"""A stage's view of a text: its vector by one embedder, and the nearest training rows in that embedder's space."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.errors import ArtifactError
from tracer_serve.protocols import Embedder
from tracer_serve.types import Inputs, Ints, Neighbours, Text, Vectors, length_of

_CELLS = 16_384  # rows x longest text of one call of an embedder, in characters: bounds padding and memory


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A fitted embedder with the training rows in its space; stages that embed alike share one.

    Parameters
    ----------
    index : nearest training rows, labels by the surrogates' classes
    """

    embedder: Embedder
    index: NeighbourIndex

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return the vectors of n texts, (n, d); long texts are not padded beside short ones."""
        lengths = [length_of(text) for text in texts]
        if len(texts) <= 1 or len(texts) * max(lengths) <= _CELLS:
            return self.embedder.embed(texts)
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        vectors = np.concatenate([self.embedder.embed([texts[i] for i in part]) for part in _parts(order, lengths)])
        found = np.empty_like(vectors)
        found[order] = vectors
        return found

    def save(self, folder: Path) -> None:
        """Write into a new folder, without pickle; of a frozen embedder its fingerprint only."""
        folder.mkdir()
        save_component(self.index, folder / "index")
        if self.embedder.trainable:
            save_component(self.embedder, folder / "embedder")
        trainable = type(self.embedder).__qualname__ if self.embedder.trainable else None
        facts = {"fingerprint": self.embedder.fingerprint, "trainable": trainable}
        (folder / "view.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, embedders: Sequence[Embedder]) -> Self:
        """Read back what `save` wrote; `embedders` are the running spec's, among which must be this view's.

        Raises
        ------
        ArtifactError
            If a file is missing or unreadable, or the spec names other embedders now.
        """
        try:
            facts = json.loads((folder / "view.json").read_text(encoding="utf-8"))
            fingerprint, trainable = facts["fingerprint"], facts["trainable"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}/view.json cannot be read: {error}") from error
        index = load_component(NeighbourIndex, folder / "index")
        if trainable is not None:
            kinds = [type(one) for one in embedders if one.trainable and type(one).__qualname__ == trainable]
            embedders = [load_component(kind, folder / "embedder") for kind in kinds[:1]]
        else:
            embedders = [one for one in embedders if not one.trainable]
        named = [one.fingerprint for one in embedders]
        if fingerprint not in named:
            raise ArtifactError(
                f"{folder} was certified with the embedder {fingerprint}, the spec now names"
                f" {', '.join(named) or 'none like it'}: its certificate is void. Put the old embedder back, or refit."
            )
        return cls(embedders[named.index(fingerprint)], index)


def _parts(order: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Cut rows, shortest first, where their number times the longest of them would be too much."""
    cuts = [0]
    for end, row in enumerate(order):
        if end > cuts[-1] and (end + 1 - cuts[-1]) * lengths[row] > _CELLS:
            cuts.append(end)
    yield from (order[start:end] for start, end in pairwise([*cuts, len(order)]))


@dataclass(slots=True)
class Batch:
    """n texts and their vectors by view; a view embeds only the rows that it is asked about.

    Parameters
    ----------
    known : vectors that the caller has, shape (n, d), by view
    embed_s : time spent in embedders, seconds
    """

    texts: Sequence[Text]
    known: Mapping[View, Vectors] = field(default_factory=dict)
    embed_s: float = 0.0
    _seen: dict[View, tuple[Ints, Inputs, Neighbours]] = field(default_factory=dict)

    def seen_by(self, view: View, rows: Ints) -> tuple[Inputs, Neighbours]:
        """Return rows with their nearest training rows; after the first call, `rows` must be a subset of its rows.

        Parameters
        ----------
        rows : ascending indices, shape (m,)
        """
        if view not in self._seen:
            inputs = self._inputs(view, rows)
            self._seen[view] = rows, inputs, view.index.near(inputs)
        asked, inputs, near = self._seen[view]
        if len(asked) == len(rows):
            return inputs, near
        place = np.searchsorted(asked, rows)
        return inputs.take(place), Neighbours(near.similarity[place], near.label[place], near.row[place])

    def _inputs(self, view: View, rows: Ints) -> Inputs:
        if view in self.known:
            return Inputs(self.texts, self.known[view]).take(rows)
        texts = self.texts if len(rows) == len(self.texts) else [self.texts[i] for i in rows]
        began = time.perf_counter()
        vectors = view.embed(texts)
        self.embed_s += time.perf_counter() - began
        return Inputs(texts, vectors)
