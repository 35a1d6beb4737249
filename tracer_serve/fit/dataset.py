"""What a fit works on: labelled rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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
    """

    texts: Sequence[Text]
    labels: Labels
    calibrates: Bools

    @classmethod
    def of(cls, texts: Sequence[Text], labels: Sequence[str] | Labels) -> "Rows":
        """Make rows that all calibrate."""
        return cls(texts, np.asarray(labels, dtype=np.str_), np.ones(len(texts), bool))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Ints) -> "Rows":
        """Return the rows given by index."""
        return Rows([self.texts[i] for i in rows], self.labels[rows], self.calibrates[rows])
