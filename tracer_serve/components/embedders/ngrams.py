"""Word and character n-grams reduced to dense vectors: no weights to download, well under a millisecond a text.

Tf-idf over words, word pairs and the 3- to 5-letter pieces of each word, projected on its leading singular vectors
(latent semantic analysis, Deerwester et al., 1990). Misspellings share pieces; rare words keep their weight.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, FitError
from tracer_serve.types import Ints, Text, Vectors

_WORD = re.compile(r"\w+")
_LONGEST_WORD = 40  # letters of a token that are looked at: bounds the pieces that hostile input can make
_PIECES = (3, 4, 5)


@embedders.register("ngrams")
class NGrams:
    """Unit-norm vectors from n-gram counts.

    A text without a single n-gram of the fit becomes the zero vector. A text's vector does not depend on the batch
    it came in.

    Parameters
    ----------
    dim : length of the vectors; fewer where the fit has fewer rows or n-grams
    max_features : most n-grams kept, those in most texts first; memory is ``max_features * dim * 4`` bytes
    max_rows : rows looked at by the fit; beyond it a uniform sample stands for all
    max_chars : letters of a text that are looked at
    seed : seed of the sample and of the randomised projection

    Examples
    --------
    >>> model = NGrams(dim=2).fit(["card lost", "card stolen", "top up failed", "top up pending"])
    >>> a, b, c = model.embed(["lost card", "stolen card", "top up"])
    >>> bool(a @ b > a @ c)
    True
    """

    trainable = True

    def __init__(
        self,
        dim: Annotated[int, Field(ge=2, le=4096)] = 256,
        max_features: Annotated[int, Field(ge=2, le=2**20)] = 2**15,
        max_rows: Annotated[int, Field(ge=2)] = 30_000,
        max_chars: Annotated[int, Field(ge=1)] = 8_000,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.dim, self.max_features, self.max_rows, self.max_chars = dim, max_features, max_rows, max_chars
        self.seed = seed
        self.columns: dict[str, int] = {}
        self.idf: Vectors = np.empty(0, np.float32)
        self.components: Vectors = np.empty((0, dim), np.float32)
        self.digest = ""

    @property
    def fingerprint(self) -> str:
        """Hash of parameters and fitted state; the state's part is made once, by the fit."""
        params = [self.dim, self.max_features, self.max_rows, self.max_chars, self.seed, self.digest]
        return "ngrams-" + hashlib.sha256(json.dumps(params).encode()).hexdigest()[:24]

    def fit(self, texts: Sequence[Text]) -> Self:
        """Learn n-grams, their idf and the projection from n texts.

        Raises
        ------
        FitError
            Where no text holds anything to count.
        """
        rng = np.random.default_rng(self.seed)
        rows = np.arange(len(texts))
        if len(rows) > self.max_rows:
            rows = np.sort(rng.choice(rows, self.max_rows, replace=False))
        counts = [self._count(texts[i]) for i in rows.tolist()]
        seen: Counter[str] = Counter()
        for count in counts:
            seen.update(count.keys())
        self.columns = {gram: i for i, gram in enumerate(_most_common(seen, self.max_features))}
        if not self.columns:
            raise FitError("the n-gram embedder found no words in the texts; are the inputs empty?")
        document_frequency = np.array([seen[gram] for gram in self.columns], np.float32)
        self.idf = np.log((1 + len(rows)) / (1 + document_frequency)).astype(np.float32) + 1
        self.components = self._project([self._weigh(count) for count in counts])
        self.digest = self._digest()
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return unit-norm float32 vectors, shape (n, d)."""
        if not self.digest:
            raise FitError("the n-gram embedder is not fitted; call fit(texts), or load a version")
        out = np.zeros((len(texts), self.components.shape[1]), np.float32)
        for i, text in enumerate(texts):
            columns, weights = self._weigh(self._count(text))
            vector = weights @ self.components[columns]
            out[i] = vector / max(float(np.sqrt(vector @ vector)), 1e-12)
        return out

    def _count(self, text: Text) -> Counter[str]:
        if not isinstance(text, str):
            raise BadInputError("ngrams embeds single texts; for `input: pair` it is wrapped in PairEmbedder")
        return Counter(_grams(text[: self.max_chars]))

    def _weigh(self, count: Counter[str]) -> tuple[Ints, Vectors]:
        """Return the columns that a text fills and their weights: sublinear tf times idf, unit norm."""
        known = [(column, n) for gram, n in count.items() if (column := self.columns.get(gram)) is not None]
        pairs = np.array(known, np.intp).reshape(-1, 2)
        weights = (1 + np.log(pairs[:, 1].astype(np.float32))) * self.idf[pairs[:, 0]]
        return pairs[:, 0], weights / np.maximum(np.sqrt(weights @ weights), np.float32(1e-12))

    def _project(self, rows: Sequence[tuple[Ints, Vectors]]) -> Vectors:
        """Return the leading right singular vectors of the weighted counts, shape (features, d)."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415  # both serve the fit only: embedding needs numpy alone
        from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415

        ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        matrix = csr_matrix(
            (np.concatenate([w for _, w in rows]), np.concatenate([c for c, _ in rows]), ends),
            shape=(len(rows), len(self.columns)),
        )
        rank = min(self.dim, *matrix.shape)
        _, _, right = randomized_svd(matrix, rank, n_iter=2, random_state=self.seed)
        return np.ascontiguousarray(right.T, np.float32)

    def _digest(self) -> str:
        state = hashlib.sha256(json.dumps(list(self.columns)).encode())
        state.update(self.idf.tobytes())
        state.update(self.components.tobytes())
        return state.hexdigest()


def _grams(text: str) -> Iterable[str]:
    """Yield words, word pairs, and the pieces of each blank-separated token (marked, so that no piece is a word)."""
    text = text.lower()
    words = [word[:_LONGEST_WORD] for word in _WORD.findall(text)]
    yield from words
    for left, right in pairwise(words):
        yield f"{left} {right}"
    for token in text.split():
        framed = f"\t{token[:_LONGEST_WORD]}\t"
        for n in _PIECES:
            if len(framed) < n:
                break
            for start in range(len(framed) - n + 1):
                yield f"\t{framed[start : start + n]}"


def _most_common(seen: Counter[str], most: int) -> list[str]:
    """Return n-grams of at least two texts (of one, where no two share any), most frequent first, ties by name."""
    least = 2 if any(n > 1 for n in seen.values()) else 1
    kept = sorted((-n, gram) for gram, n in seen.items() if n >= least)
    return [gram for _, gram in kept[:most]]
