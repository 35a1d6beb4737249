"""Nearest traces vote."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.neighbours import NeighbourIndex
from tracer_serve.records import Inputs, Ints, Labels, Vectors
from tracer_serve.registry import surrogates
from tracer_serve.surrogates._arrays import encode


@surrogates.register("knn")
class Knn:
    """The labels of the k nearest traces by cosine, each weighing ``exp(cosine / temperature)``.

    Every class keeps a little mass, so that a log probability is always finite.

    Parameters
    ----------
    k : neighbours
    temperature : cosine difference that makes a vote e times heavier
    smoothing : mass that the classes share, as a share of all votes
    cap : most traces searched; beyond it a uniform sample stands for all
    seed : seed of that sample
    """

    cost = 0.1  # CPU of a fit in units of logreg's: cheap candidates are compared first

    def __init__(
        self,
        *,
        k: Annotated[int, Field(ge=1, le=1000)] = 15,
        temperature: Annotated[float, Field(gt=0)] = 0.03,
        smoothing: Annotated[float, Field(gt=0, lt=1)] = 0.02,
        cap: Annotated[int, Field(ge=1)] = 20_000,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.k, self.temperature, self.smoothing, self.cap, self.seed = k, temperature, smoothing, cap, seed
        self.classes_: Labels = np.empty(0, np.str_)
        self.vectors_: Vectors = np.empty((0, 0), np.float32)
        self.labels_: Ints = np.empty(0, np.int32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Keep the traces; nothing is learnt."""
        self.classes_, y = encode(labels)
        index = NeighbourIndex(self.k, self.cap, self.seed).fit(inputs.embeddings, y)
        self.vectors_, self.labels_ = index.vectors, index.labels
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        near = self._index().query(inputs.embeddings)
        weight = np.exp((near.similarity - near.similarity[:, :1]) / self.temperature)
        n, k = len(inputs), len(self.classes_)
        cell = near.label + k * np.arange(n)[:, None]
        votes = np.bincount(cell.ravel(), weight.ravel(), minlength=n * k).reshape(n, k)
        share = votes / votes.sum(axis=1, keepdims=True)
        proba: Vectors = ((1 - self.smoothing) * share + self.smoothing / k).astype(np.float32)
        return proba

    def _index(self) -> NeighbourIndex:
        index = NeighbourIndex(self.k, self.cap, self.seed)
        index.vectors, index.labels = self.vectors_, self.labels_
        index.rows = np.arange(len(self.labels_))
        return index
