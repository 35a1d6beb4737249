"""Exact nearest training rows by cosine, on a capped set of rows so that a query never grows with the traces."""

from typing import Self

import numpy as np

from tracer_serve.records import Ints, Neighbours, Vectors

_CHUNK_CELLS = 4_000_000  # similarities held at once: 16 MB


class NeighbourIndex:
    """Nearest rows of a reference set.

    Parameters
    ----------
    k : neighbours per query
    cap : most reference rows kept; beyond it a uniform sample stands for all
    seed : seed of that sample

    Examples
    --------
    >>> index = NeighbourIndex(k=1).fit(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> index.query(np.array([[0.1, 0.9]], dtype=np.float32)).label.tolist()
    [[1]]
    """

    def __init__(self, k: int = 15, cap: int = 20_000, seed: int = 0) -> None:
        self.k, self.cap, self.seed = k, cap, seed
        self.vectors: Vectors = np.empty((0, 0), np.float32)
        self.labels: Ints = np.empty(0, np.int32)
        self.rows: Ints = np.empty(0, np.int64)

    def fit(self, embeddings: Vectors, labels: Ints) -> Self:
        """Keep the rows (n, d) and their class indices (n,)."""
        rows = np.arange(len(embeddings))
        if len(rows) > self.cap:
            rows = np.sort(np.random.default_rng(self.seed).choice(rows, self.cap, replace=False))
        self.vectors = _unit(embeddings[rows])
        self.labels, self.rows = labels[rows].astype(np.int32), rows
        return self

    def query(self, embeddings: Vectors) -> Neighbours:
        """Return the neighbours of each row of (m, d), nearest first."""
        m, k = len(embeddings), min(self.k, len(self.vectors))
        similarity = np.full((m, self.k), -np.inf, np.float32)
        position = np.zeros((m, self.k), np.int64)
        step = max(1, _CHUNK_CELLS // max(1, len(self.vectors)))
        for start in range(0, m, step):
            part = slice(start, start + step)
            cosine = _unit(embeddings[part]) @ self.vectors.T
            best = np.argpartition(cosine, -k, axis=1)[:, -k:] if k < cosine.shape[1] else _all(cosine)
            order = np.argsort(-np.take_along_axis(cosine, best, 1), axis=1, kind="stable")
            position[part, :k] = np.take_along_axis(best, order, 1)
            similarity[part, :k] = np.take_along_axis(cosine, position[part, :k], 1)
        return Neighbours(similarity, self.labels[position], self.rows[position])


def _unit(vectors: Vectors) -> Vectors:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(norm, 1e-12)).astype(np.float32, copy=False)
    return scaled


def _all(cosine: Vectors) -> Ints:
    return np.broadcast_to(np.arange(cosine.shape[1]), cosine.shape)
