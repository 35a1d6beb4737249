"""Margin score: largest minus second largest probability."""

from typing import Self

import numpy as np

from tracer_serve.components.acceptors._proba import top_two
from tracer_serve.components.registry import acceptors
from tracer_serve.types import Bools, Evidence, Floats, Vectors


@acceptors.register("margin")
class Margin:
    """Largest minus second largest probability; has no parameters to learn."""

    learnt = False  # the score does not depend on labels

    def features(self, evidence: Evidence) -> Vectors:
        """Return the margin of each row, shape (n, 1); 1 with a single class."""
        top1, top2 = top_two(evidence.proba)
        return (top1 - top2)[:, None].astype(np.float32)

    def fit(self, features: Vectors, agreed: Bools) -> Self:  # noqa: ARG002  # required by the protocol
        """Return itself: there is nothing to learn."""
        return self

    def score(self, features: Vectors) -> Floats:
        """Return the feature."""
        return features[:, 0]
