"""Nearest other calibration rows of a row: evidence that depends on no model and excludes the row itself."""

from dataclasses import dataclass

import numpy as np

from tracer_serve.components.neighbour_index import unit
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourRows:
    """The k nearest other rows of m rows, nearest first, without duplicates of the row.

    Parameters
    ----------
    of : the m rows, shape (m,)
    row : their neighbours, shape (m, k)
    similarity : cosine, -inf if there are fewer than k, shape (m, k)
    """

    of: Ints
    row: Ints
    similarity: Floats

    @classmethod
    def find(cls, seen: CalibrationView, of: Ints, k: int = 15) -> "NeighbourRows":
        """Find up to k neighbours of the rows `of` among all calibration rows, or a sample of 20,000."""
        near = seen.index.query(seen.vectors[of])
        similarity = np.where(seen.group[near.row] == seen.group[of][:, None], -np.inf, near.similarity)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return cls(of, np.take_along_axis(near.row, order, 1), np.take_along_axis(similarity, order, 1))

    @property
    def known(self) -> Bools:
        """Return which neighbours exist, shape (m, k)."""
        return np.isfinite(self.similarity)

    def votes(self, truth: Ints, label: Ints) -> Floats:
        """Return the share of each row's neighbours with the teacher label `label` (m,); 0 without neighbours."""
        same = (truth[self.row] == label[:, None]) & self.known
        total: Floats = same.sum(axis=1) / np.maximum(self.known.sum(axis=1), 1)
        return total


_NEAREST = 3
_CELLS = 4_000_000  # cosines held at once: 16 MB


def closeness(seen: CalibrationView, rows: Ints, labels: Ints) -> Floats:
    """Return the mean cosine of each row to the three nearest other rows of a label; NaN if there are none.

    Parameters
    ----------
    rows : shape (m,); near-duplicates of a row are excluded
    labels : a label for each of them, index into ``seen.classes``, shape (m,)
    """
    vectors, found = unit(seen.vectors), np.full(len(rows), np.nan)
    for label in np.unique(labels):
        members, asked = np.flatnonzero(seen.truth == label), np.flatnonzero(labels == label)
        parts = max(1, len(asked) * len(members) // _CELLS)
        for part in np.array_split(asked, parts):
            cosine = vectors[rows[part]] @ vectors[members].T
            cosine[seen.group[rows[part]][:, None] == seen.group[members]] = -np.inf
            found[part] = _mean_of_best(cosine)
    return found


def _mean_of_best(cosine: Floats) -> Floats:
    best = -np.sort(-cosine, axis=1)[:, :_NEAREST]
    known = np.isfinite(best)
    total = np.where(known, best, 0.0).sum(axis=1)
    mean: Floats = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
    return mean
