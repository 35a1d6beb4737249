"""What the report is drawn from: the calibration rows as the certificate saw them, never as trained on."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tracer_serve.types import Bools, Floats, Ints, Labels


@dataclass(frozen=True, slots=True)
class Calibration:
    """Out-of-fold or held-out results, n rows.

    Parameters
    ----------
    row : index into the rows of the fit, shape (n,)
    classes : the labels that `top`, `second` and `truth` index, shape (k,)
    top, second : the two most probable labels, shape (n,)
    truth : the teacher's label, shape (n,)
    agreed : whether `top` is `truth`
    score : the acceptor's score, in a cascade on its path
    scope : scope score of the stage in `stage`
    eligible : rows that its guards let pass
    fair : rows that entered the certificate (a fair sample of traffic)
    stage : the stage of the policy that answers the row, from 0; the last where none does
    """

    row: Ints
    classes: Labels
    top: Ints
    second: Ints
    truth: Ints
    agreed: Bools
    score: Floats
    scope: Floats
    eligible: Bools
    fair: Bools
    stage: Ints

    def save(self, file: Path) -> None:
        """Write as npz, without pickle."""
        np.savez_compressed(file, allow_pickle=False, **asdict(self))

    @classmethod
    def load(cls, file: Path) -> "Calibration":
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})
