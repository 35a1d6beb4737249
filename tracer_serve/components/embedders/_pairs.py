"""Embed pairs of texts: both vectors, their difference and product, and word overlap (``input: pair``)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import embedders
from tracer_serve.components.truncation import truncated
from tracer_serve.errors import BadInputError
from tracer_serve.protocols import Embedder, Imitating
from tracer_serve.types import Bools, Text, Vectors

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_NEGATIONS = frozenset(
    ["no", "not", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "without", "cannot"]
)
_MOST_NEGATIONS = 3
LEXICAL = 7
"""Number of word-overlap features."""


class PairEmbedder:
    """Wrap an embedder of single texts for pairs.

    The texts of a pair are embedded separately, so a cache below embeds a text that is in many pairs only once. With u
    and v of length d, the vector is ``[u, v, |u - v|, u * v]`` (Conneau et al., 2017, InferSent), their cosine and
    seven word features, together of length 4 d + 8. The word features detect negations, which embeddings barely show.

    Parameters
    ----------
    inner : embedder of single texts, frozen or trainable; a trainable one is fitted on both sides of the pairs

    Examples
    --------
    >>> from tracer_serve.components.embedders.ngrams import NGrams
    >>> pairs = [("a man runs", "a man is running"), ("a man runs", "nobody runs")]
    >>> PairEmbedder(NGrams(dim=2)).fit(pairs).embed(pairs).shape
    (2, 16)
    """

    def __init__(self, inner: Embedder) -> None:
        self.inner, self.trainable = inner, inner.trainable

    @property
    def fingerprint(self) -> str:
        """Return the inner embedder's fingerprint with a prefix."""
        return f"pair1-{self.inner.fingerprint}"

    @property
    def uncached(self) -> "PairEmbedder":
        """Return the same embedder without a cache, for measuring what embedding costs."""
        return PairEmbedder(getattr(self.inner, "uncached", self.inner))

    @property
    def encoder(self) -> Embedder | None:
        """Return the encoder that the inner embedder imitates; None if it imitates none."""
        return self.inner.encoder if isinstance(self.inner, Imitating) else None

    @property
    def remote(self) -> bool:
        """Return whether a remote endpoint computes the vectors."""
        return bool(getattr(self.inner, "remote", False))

    def fit(self, texts: Sequence[Text]) -> Self:
        """Fit the inner embedder on both sides of n pairs."""
        self.inner.fit([side for pair in texts for side in _sides(pair)])
        return self

    def imitate(self, texts: Sequence[Text]) -> None:
        """Let the encoder that the inner embedder imitates, if it does, embed both sides of n pairs."""
        if isinstance(self.inner, Imitating):
            self.inner.imitate([side for pair in texts for side in _sides(pair)])

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return float32 vectors, shape (n, 4 d + 8).

        Raises
        ------
        BadInputError
            If an input is not a pair.
        """
        pairs = [_sides(pair) for pair in texts]
        both = self.inner.embed([side for pair in pairs for side in pair])
        u, v = both[0::2], both[1::2]
        product = u * v
        words = np.array([_lexical(*pair) for pair in pairs], np.float32).reshape(-1, LEXICAL)
        joined: Vectors = np.hstack([u, v, np.abs(u - v), product, product.sum(axis=1, keepdims=True), words])
        return joined

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which pairs have a side that the inner embedder reads only in part."""
        sides = truncated(self.inner, [side for pair in texts for side in _sides(pair)])
        return sides[0::2] | sides[1::2]

    def save(self, folder: Path) -> None:
        """Write the inner embedder and its registered name."""
        (folder / "inner.txt").write_text(embedders.name_of(type(self.inner)), encoding="utf-8")
        save_component(self.inner, folder / "inner")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load; the stored name can only select a registered embedder."""
        inner = embedders.get((folder / "inner.txt").read_text(encoding="utf-8"))
        return cls(load_component(inner, folder / "inner"))


def _sides(pair: Text) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2:  # noqa: PLR2004  # a pair
        raise BadInputError("this task classifies pairs: send two texts, such as [premise, hypothesis]")
    return pair[0], pair[1]


def _lexical(left: str, right: str) -> tuple[float, ...]:
    """Return overlap (of the union, of either side), negations on either side and on one only, ratio of lengths."""
    a, b = _WORD.findall(left.lower()), _WORD.findall(right.lower())
    bag_a, bag_b = set(a), set(b)
    shared = len(bag_a & bag_b)
    not_a, not_b = _negations(a), _negations(b)
    return (
        shared / max(1, len(bag_a | bag_b)),
        shared / max(1, len(bag_a)),
        shared / max(1, len(bag_b)),
        min(not_a, _MOST_NEGATIONS) / _MOST_NEGATIONS,
        min(not_b, _MOST_NEGATIONS) / _MOST_NEGATIONS,
        float((not_a > 0) != (not_b > 0)),
        min(len(a), len(b)) / max(1, len(a), len(b)),
    )


def _negations(words: Sequence[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith(("n't", "n\u2019t")) for word in words)
