"""Embed texts by word and character n-grams: no weights to download, well under a millisecond a text.

Tf-idf of hashed words, word pairs and 3- to 5-letter windows, projected on its leading singular vectors (latent
semantic analysis, Deerwester et al., 1990). Misspellings share windows; rare words keep their weight.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.hashed_ngrams import GramCounts, Grams, Weights, count_ngrams, learn_vocabulary, weigh
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, FitError
from tracer_serve.types import Bools, Text, Vectors

_FEWEST_TEXTS = 2  # texts that an n-gram must occur in, if any occurs in as many


@embedders.register("ngrams")
class NGrams:
    """Unit-norm vectors from n-gram counts.

    A text without any n-gram of the fit becomes the zero vector. A text's vector does not depend on its batch.

    Parameters
    ----------
    dim : length of the vectors; fewer if the fit has fewer rows or n-grams
    max_features : number of n-grams kept, the most common ones; memory is ``max_features * dim * 4`` bytes
    max_rows : number of rows used by the fit, a uniform sample of more
    max_chars : number of characters of a text that are read
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
        self.grams: Grams = np.empty(0, np.uint32)
        self.idf: Vectors = np.empty(0, np.float32)
        self.components: Vectors = np.empty((0, dim), np.float32)
        self.digest = ""

    @property
    def fingerprint(self) -> str:
        """Hash of parameters and fitted state."""
        params = [self.dim, self.max_features, self.max_rows, self.max_chars, self.seed, self.digest]
        return "ngrams-" + hashlib.sha256(json.dumps(params).encode()).hexdigest()[:24]

    def fit(self, texts: Sequence[Text]) -> Self:
        """Learn n-grams, their idf and the projection from n texts.

        Raises
        ------
        FitError
            If no text contains a word.
        """
        if len(texts) > self.max_rows:
            rows = np.random.default_rng(self.seed).choice(len(texts), self.max_rows, replace=False)
            texts = [texts[i] for i in np.sort(rows)]
        counts = self._count(texts)
        if not len(counts.gram):
            raise FitError("the n-gram embedder found no words in the texts; are the inputs empty?")
        self.grams, self.idf = learn_vocabulary(counts, len(texts), _FEWEST_TEXTS, self.max_features)
        self.components = self._project(weigh(counts, len(texts), self.grams, self.idf))
        state = (self.grams, self.idf, self.components)
        self.digest = hashlib.sha256(b"".join(array.tobytes() for array in state)).hexdigest()
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return unit-norm float32 vectors, shape (n, d)."""
        if not self.digest:
            raise FitError("the n-gram embedder is not fitted; call fit(texts), or load a version")
        weights = weigh(self._count(texts), len(texts), self.grams, self.idf)
        out = np.zeros((len(texts), self.components.shape[1]), np.float32)
        for i in range(len(texts)):
            row = slice(weights.starts[i], weights.starts[i + 1])
            vector = weights.value[row] @ self.components[weights.column[row]]
            out[i] = vector / max(float(np.sqrt(vector @ vector)), 1e-12)
        return out

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts are longer than `max_chars`."""
        return np.array([len(text) > self.max_chars for text in texts], bool)

    def _count(self, texts: Sequence[Text]) -> GramCounts:
        if not all(isinstance(text, str) for text in texts):
            raise BadInputError("ngrams embeds single texts; for `input: pair` it is wrapped in PairEmbedder")
        return count_ngrams([text[: self.max_chars] for text in texts if isinstance(text, str)])

    def _project(self, weights: Weights) -> Vectors:
        """Return the leading right singular vectors of the weights, shape (features, d)."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415  # the fit alone needs it: embedding needs numpy only
        from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415

        matrix = csr_matrix(weights, shape=(len(weights.starts) - 1, len(self.grams)))
        _, _, right = randomized_svd(matrix, min(self.dim, *matrix.shape), n_iter=2, random_state=self.seed)
        return np.ascontiguousarray(right.T, np.float32)
