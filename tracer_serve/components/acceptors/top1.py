"""Confidence score by the largest class probability (Chow's rule)."""

from typing import Self

import numpy as np

from tracer_serve.components.acceptors._proba import top_two
from tracer_serve.components.registry import acceptors
from tracer_serve.types import Bools, Evidence, Floats, Vectors


@acceptors.register("top1")
class Top1:
    """Largest probability; has no parameters to learn.

    References
    ----------
    C. K. Chow, "On optimum recognition error and reject tradeoff", IEEE Trans. Inf. Theory 16 (1970).
    """

    learnt = False  # the score does not depend on labels

    def features(self, evidence: Evidence) -> Vectors:
        """Return the largest probability of each row, shape (n, 1)."""
        return top_two(evidence.proba)[0][:, None].astype(np.float32)

    def fit(self, features: Vectors, agreed: Bools) -> Self:  # noqa: ARG002  # required by the protocol
        """Return itself: there is nothing to learn."""
        return self

    def score(self, features: Vectors) -> Floats:
        """Return the feature."""
        return features[:, 0]
