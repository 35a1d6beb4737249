"""The range of inputs that calibration covered: their lengths and their character n-grams."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from tracer_serve.components.ngram_rarity import NgramRarity
from tracer_serve.protocols import Embedder
from tracer_serve.types import Bools, Floats, Ints, Text, length_of

_COVERED = 0.999  # share of the texts that the longest length covers: one huge text must not let all long ones pass


class Novelty(NamedTuple):
    """How far n texts are from what is known.

    Parameters
    ----------
    rarity : of the texts' character n-grams among those of the training texts, shape (n,)
    too_long : texts that are longer than the calibrated ones, shape (n,)
    """

    rarity: Floats
    too_long: Bools

    def take(self, rows: Ints) -> "Novelty":
        """Return the rows given by index."""
        return Novelty(self.rarity[rows], self.too_long[rows])


class InputRange(NgramRarity):
    """Lengths and n-grams of the texts that a policy was fitted on. Before a fit everything is within it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.longest = -1

    @property
    def fitted(self) -> bool:
        """Return whether there is a range."""
        return self.longest >= 0

    def fit(self, texts: Sequence[Text]) -> Self:
        """Learn the range of n texts."""
        self.longest = longest_of(texts)
        return super().fit(texts)

    def compare(self, texts: Sequence[Text]) -> Novelty:
        """Return how far n texts are from the range."""
        return Novelty(self.of(texts), longer_than(texts, self.longest))


def reads_texts(embedder: Embedder) -> bool:
    """Return whether inputs are texts; vectors that a client sends have digits, and no n-grams or lengths to judge."""
    bare = getattr(embedder, "uncached", embedder)
    return bool(getattr(bare, "reads_texts", True))


def longest_of(texts: Sequence[Text]) -> int:
    """Return the length, in characters, that all but one in a thousand texts do not exceed; -1 without a text."""
    lengths = np.sort([length_of(text) for text in texts])
    return int(lengths[int(np.ceil(_COVERED * len(lengths))) - 1]) if len(lengths) else -1


def longer_than(texts: Sequence[Text], longest: int) -> Bools:
    """Return which texts are longer than some length, shape (n,); none if it is negative."""
    if longest < 0:
        return np.zeros(len(texts), bool)
    found: Bools = np.array([length_of(text) > longest for text in texts], bool)
    return found
