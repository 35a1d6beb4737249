"""The nearest training rows of each vector, as `components.neighbour_index` finds them."""

from dataclasses import dataclass

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.policy.onnx_export.graph import Graph

NOTHING = float(np.finfo(np.float32).min)
"""Cosine of a row that is not there."""


@dataclass(frozen=True, slots=True)
class NearestRows:
    """Names of results, each (n, m): cosines, nearest first; the rows' class indices; whether a row is there."""

    similarity: str
    label: str
    there: str


class Indexes:
    """Searches of one batch: indexes over the same rows share one.

    Parameters
    ----------
    vectors : name of the vectors, scaled to length 1
    """

    def __init__(self, graph: Graph, vectors: str) -> None:
        self._graph, self._vectors = graph, vectors
        self._found: dict[tuple[str, int], tuple[str, str, str]] = {}

    def near(self, index: NeighbourIndex) -> NearestRows:
        """Return the nearest rows in an index."""
        graph, key = self._graph, (index.digest, index.k)
        if key not in self._found:
            self._found[key] = self._search(index)
        similarity, position, there = self._found[key]
        label = graph.op("Gather", graph.constant(index.labels, np.int64), position)
        return NearestRows(similarity, label, there)

    def _search(self, index: NeighbourIndex) -> tuple[str, str, str]:
        graph = self._graph
        cosine = graph.op("MatMul", self._vectors, graph.constant(index.vectors.T))
        cells, probes = len(index.centres), index.probes
        if probes < cells:  # rows of other cells are not looked at
            to_centres = graph.op("MatMul", self._vectors, graph.constant(index.centres.T))
            best, _ = graph.op("TopK", to_centres, graph.constant(probes, np.int64), outputs=2)
            least = graph.op("ReduceMin", best, axes=[1], keepdims=1)
            looked_at = graph.cast(graph.op("GreaterOrEqual", to_centres, least), np.float32)
            cell = np.repeat(np.arange(cells), np.diff(index.starts))
            row_is = graph.op("Gather", looked_at, graph.constant(cell, np.int64), axis=1)
            cosine = graph.op("Where", graph.cast(row_is, np.bool_), cosine, graph.constant(NOTHING))
        count = graph.constant(min(index.k, len(index.vectors)), np.int64)
        similarity, position = graph.op("TopK", cosine, count, outputs=2)
        there = graph.op("Greater", similarity, graph.constant(NOTHING))
        return similarity, position, there


def scaled_to_length_one(graph: Graph, vectors: str) -> str:
    """Return the vectors divided by their lengths; zero vectors stay zero."""
    length = graph.op("ReduceL2", vectors, axes=[1], keepdims=1)
    return str(graph.op("Div", vectors, graph.op("Max", length, graph.constant(1e-12))))
