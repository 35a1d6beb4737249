"""k-nearest-neighbours classifier on the embedding."""

import json
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode
from tracer_serve.errors import ArtifactError
from tracer_serve.types import Inputs, Labels, Vectors

_PARAMS = ("k", "temperature", "smoothing", "cap", "seed")


@surrogates.register("knn")
class Knn:
    """Vote of the k nearest traces by cosine, each weighted by ``exp(cosine / temperature)``.

    Every class gets a small mass, so that log probabilities are finite.

    Parameters
    ----------
    k : neighbours
    temperature : cosine difference that makes a vote e times heavier
    smoothing : share of all votes that is spread over the classes
    cap : maximum number of traces searched, a uniform sample of more
    seed : seed of that sample
    """

    cost = 0.1  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

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
        self.index_ = NeighbourIndex(k, cap, seed)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Store the traces; no parameters are learned."""
        self.classes_, y = encode(labels)
        self.index_ = NeighbourIndex(self.k, self.cap, self.seed).fit(inputs.embeddings, y)
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        near = self.index_.near(inputs)
        weight = np.exp((near.similarity - near.similarity[:, :1]) / self.temperature)
        n, k = len(inputs), len(self.classes_)
        cell = near.label + k * np.arange(n)[:, None]
        votes = np.bincount(cell.ravel(), weight.ravel(), minlength=n * k).reshape(n, k)
        share = votes / votes.sum(axis=1, keepdims=True)
        proba: Vectors = ((1 - self.smoothing) * share + self.smoothing / k).astype(np.float32)
        return proba

    def save(self, folder: Path) -> None:
        """Write parameters, classes and the traces."""
        params = {name: getattr(self, name) for name in _PARAMS}
        state = {"params": params, "classes": self.classes_.tolist()}
        (folder / "knn.json").write_text(json.dumps(state), encoding="utf-8")
        save_component(self.index_, folder / "index")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        try:
            state = json.loads((folder / "knn.json").read_text(encoding="utf-8"))
            knn = cls(**state["params"])
            knn.classes_ = np.array(state["classes"], np.str_)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: the state of a knn cannot be read: {error}") from error
        knn.index_ = load_component(NeighbourIndex, folder / "index")
        return knn
