"""The nearest other calibration rows of a row: evidence that no model has touched and that never holds the row."""

from dataclasses import dataclass

import numpy as np

from tracer_serve.records import Bools, Floats, Ints
from tracer_serve.report.seen import Seen


@dataclass(frozen=True, slots=True, eq=False)
class Kin:
    """The k nearest other rows of some rows, nearest first; duplicates of a row are not its kin.

    Parameters
    ----------
    of : the rows asked about, shape (m,)
    row : their kin, shape (m, k)
    similarity : cosine, -inf where there are fewer, shape (m, k)
    """

    of: Ints
    row: Ints
    similarity: Floats

    @classmethod
    def find(cls, seen: Seen, of: Ints, k: int = 15) -> "Kin":
        """Find up to k kin of the rows `of` among all calibration rows (a sample of 20,000 where there are more)."""
        near = seen.index.query(seen.vectors[of])
        similarity = np.where(seen.group[near.row] == seen.group[of][:, None], -np.inf, near.similarity)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return cls(of, np.take_along_axis(near.row, order, 1), np.take_along_axis(similarity, order, 1))

    @property
    def known(self) -> Bools:
        """Which of the kin there are, shape (m, k)."""
        return np.isfinite(self.similarity)

    def votes(self, truth: Ints, label: Ints) -> Floats:
        """Return the share of each row's kin whose teacher label is `label` (m,); 0 where there are no kin."""
        same = (truth[self.row] == label[:, None]) & self.known
        total: Floats = same.sum(axis=1) / np.maximum(self.known.sum(axis=1), 1)
        return total
