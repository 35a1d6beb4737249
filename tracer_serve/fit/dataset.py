"""What a fit works on: labelled rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tracer_serve.fit.groups import groups_of
from tracer_serve.types import Bools, Ints, Labels, Text

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled traces.

    Parameters
    ----------
    texts : n inputs
    labels : the teacher's labels, shape (n,)
    calibrates : rows that form a fair sample of traffic and may enter a certificate; the others only train
        (gate.md, section 5), shape (n,)
    groups : group of each row, rows with one cause (`fit.groups.groups_of`), shape (n,); by default found in the texts
    """

    texts: Sequence[Text]
    labels: Labels
    calibrates: Bools
    groups: Ints = None  # type: ignore[assignment]  # found below

    def __post_init__(self) -> None:
        if self.groups is None:
            object.__setattr__(self, "groups", groups_of(self.texts))

    @classmethod
    def of(cls, texts: Sequence[Text], labels: Sequence[str] | Labels, named: Sequence[str] = ()) -> "Rows":
        """Make rows that all calibrate; `named` are the groups that the caller knows, one per row."""
        everything = np.ones(len(texts), bool)
        return cls(texts, np.asarray(labels, dtype=np.str_), everything, groups_of(texts, named))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Ints) -> "Rows":
        """Return the rows given by index."""
        return Rows([self.texts[i] for i in rows], self.labels[rows], self.calibrates[rows], self.groups[rows])
