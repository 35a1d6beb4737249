"""Labelled rows, the input of a fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tracer_serve.fit.groups import GroupBy, groups_of
from tracer_serve.types import Bools, Ints, Labels, Text


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled traces, oldest first.

    Parameters
    ----------
    texts : n inputs
    labels : the teacher's labels, shape (n,)
    calibrates : rows that form a fair sample of traffic and may enter a certificate; the others only train
        (gate.md, section 5), shape (n,)
    named : the group of each row that the caller named; empty if it named none, shape (n,)
    groups : group of each row, shape (n,); None until `grouped`
    unlabelled : further texts of the task, for embedders that learn from a slow one's vectors
    arrived : order of arrival of each row, shape (n,); rows of unknown order, as imported ones, share a number. None:
        nothing is known of any
    """

    texts: Sequence[Text]
    labels: Labels
    calibrates: Bools
    named: Labels | None = None
    groups: Ints | None = None
    arrived: Ints | None = None
    unlabelled: Sequence[Text] = ()

    @classmethod
    def of(cls, texts: Sequence[Text], labels: Sequence[str] | Labels) -> "Rows":
        """Make rows that all calibrate."""
        return cls(texts, np.asarray(labels, dtype=np.str_), np.ones(len(texts), bool))

    def __len__(self) -> int:
        return len(self.texts)

    def grouped(self, by: GroupBy = "template") -> "Rows":
        """Return the rows with their groups (`fit.groups.groups_of`); groups that are known stay as they are."""
        if self.groups is not None:
            return self
        return replace(self, groups=groups_of(self.texts, () if self.named is None else self.named.tolist(), by))

    @property
    def group(self) -> Ints:
        """Group of each row, 0, 1, 2 ..., shape (n,)."""
        found = groups_of(self.texts) if self.groups is None else self.groups
        return np.unique(found, return_inverse=True)[1]

    def take(self, rows: Ints) -> "Rows":
        """Return the rows given by index."""
        named = None if self.named is None else self.named[rows]
        groups = None if self.groups is None else self.groups[rows]
        arrived = None if self.arrived is None else self.arrived[rows]
        texts, calibrates = [self.texts[i] for i in rows], self.calibrates[rows]
        return Rows(texts, self.labels[rows], calibrates, named, groups, arrived, self.unlabelled)
