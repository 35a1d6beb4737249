"""Example of an acceptor: an answer is as safe as the share of its nearest known traces that have that label.

Copy this file, name it under `plugins:` in your YAML, and use it: `acceptors: [{type: neighbours, k: 5}]`. `features`
reads the evidence (texts, embeddings, probabilities, nearest traces) and learns nothing; `fit` may learn from features
and from whether the teacher agreed; `score` says how safe, higher is safer. The gate decides which score suffices.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import acceptors
from tracer_serve.types import Bools, Evidence, Floats, Vectors


@acceptors.register("neighbours")
class NeighbourShare:
    """Share of the k nearest traces with the predicted label, and a little of its probability to break ties."""

    def __init__(self, k: Annotated[int, Field(ge=1, le=15)] = 10) -> None:
        self.k = k

    def features(self, evidence: Evidence) -> Vectors:
        """Return shape (n, 2): the share and the largest probability."""
        predicted = evidence.proba.argmax(axis=1)[:, None]
        same = (evidence.neighbours.label == predicted) & np.isfinite(evidence.neighbours.similarity)
        return np.column_stack([same[:, : self.k].mean(axis=1), evidence.proba.max(axis=1)]).astype(np.float32)

    def fit(self, features: Vectors, agreed: Bools) -> Self:  # noqa: ARG002  # this acceptor has nothing to learn
        return self

    def score(self, features: Vectors) -> Floats:
        return features[:, 0] + 0.01 * features[:, 1]
