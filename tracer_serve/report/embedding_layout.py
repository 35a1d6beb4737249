"""Two-dimensional layout of vectors: near rows attract, random rows repel (as in LargeVis and UMAP).

Loss of Tang et al. (LargeVis, 2016) with the kernel 1 / (1 + d^2) and negative samples, all edges at once per epoch,
started from the two main components, so that the layout is deterministic.
"""

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.types import Floats, Ints, Vectors

_NEIGHBOURS = 12
_NEGATIVES = 5
_EPOCHS = 120
_CLIP = 4.0
_GRAVITY = 0.02  # keeps groups close to each other
_EVEN = 0.5  # share of the even spacing of points along each axis, which reduces empty space
_EDGE = 0.005  # share of the points at either end that are moved to the edge, so that outliers do not shrink the rest


def layout(vectors: Vectors, seed: int = 0) -> Floats:
    """Return a place in the plane for each of n rows, shape (n, 2), within -1 and 1.

    Parameters
    ----------
    vectors : shape (n, d); n up to a few thousand
    """
    n = len(vectors)
    if n <= _NEIGHBOURS + 1:
        return _framed(_main_components(vectors))
    near = NeighbourIndex(k=_NEIGHBOURS + 1, cap=n).fit(vectors, np.zeros(n, np.int64)).query(vectors).row[:, 1:]
    place = 8.0 * _framed(_main_components(vectors))
    heads, tails, rng = np.repeat(np.arange(n), _NEIGHBOURS), near.ravel(), np.random.default_rng(seed)
    for epoch in range(_EPOCHS):
        step = 0.25 * (1.0 - epoch / _EPOCHS)
        pull = _forces(place, heads, tails, attract=True)
        others = rng.integers(0, n, n * _NEGATIVES)
        push = _forces(place, np.repeat(np.arange(n), _NEGATIVES), others, attract=False)
        place = place + step * np.clip(pull + push - _GRAVITY * place, -_CLIP, _CLIP)
    return _framed(place)


def _forces(place: Floats, heads: Ints, tails: Ints, *, attract: bool) -> Floats:
    """Sum the force of each pair on both of its ends, shape (n, 2)."""
    difference = place[heads] - place[tails]
    square = (difference * difference).sum(axis=1)
    size = -1.0 / (1.0 + square) if attract else 1.0 / ((0.01 + square) * (1.0 + square))
    force, n = np.clip(difference * size[:, None], -_CLIP, _CLIP), len(place)
    columns = [np.bincount(heads, force[:, j], n) - np.bincount(tails, force[:, j], n) for j in range(2)]
    total: Floats = np.stack(columns, axis=1)
    return total


def _main_components(vectors: Vectors) -> Floats:
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    two = axes[:, ::-1][:, :2]
    two = two * np.where(two[np.abs(two).argmax(axis=0), np.arange(two.shape[1])] < 0, -1.0, 1.0)
    place = np.zeros((len(vectors), 2))
    place[:, : two.shape[1]] = centred @ two
    return place


def _framed(place: Floats) -> Floats:
    if not len(place):
        return place
    low, high = np.quantile(place, [_EDGE, 1.0 - _EDGE], axis=0)
    framed = np.clip((2.0 * place - low - high) / np.maximum(high - low, 1e-12), -1.0, 1.0)
    rank = np.argsort(np.argsort(place, axis=0, kind="stable"), axis=0) / max(1, len(place) - 1)
    evened: Floats = (1.0 - _EVEN) * framed + _EVEN * (2.0 * rank - 1.0)
    return evened
