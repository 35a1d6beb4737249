"""The calibration set of a fit: rows with predictions of models that were not trained on them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tracer_serve.fit.candidate import Paths
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.drift_window import since_drop
from tracer_serve.gate.segments import thresholds_of
from tracer_serve.gate.settings import CalibrationRows, Mode
from tracer_serve.types import Bools, Floats, Ints, Labels


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """n labelled rows, scored by models that were not trained on them.

    Parameters
    ----------
    mode : ``strict`` or ``cross_fit``: how the paths were made
    paths : what each stage says of each row
    row : index into the rows of the fit, shape (n,)
    fair : rows that are a fair sample of traffic; only these enter the certificate, shape (n,)
    classes : the labels that class indices mean, shape (k,)
    truth : the teacher's label, shape (n,)
    group : group of each row, shape (n,)
    predicted : P(agree) of each stage and row, fitted on rows that are not among these, shape (s, n); None spends a
        pilot (`gate.pilot`)
    rivals : surrogates that were compared on these rows
    spare : number of leading stages in the paths that the served policy does not have
    segment : segment of each row, shape (n,); None without ``gate.segments``
    outdated : rows that were fair, and came before a drop in agreement (`gate.drift_window`)
    """

    mode: Mode
    paths: Paths
    row: Ints
    fair: Bools
    classes: Labels
    truth: Ints
    group: Ints
    predicted: Floats | None = None
    rivals: int = 1
    spare: int = 0
    segment: Labels | None = None
    outdated: int = 0

    def current(self, arrived: Ints | None, least: int) -> Self:
        """Return it with the rows since agreement last dropped as its fair ones.

        Parameters
        ----------
        arrived : order of arrival of each row of the fit, as in `Rows`; None: nothing is known
        least : rows that suffice for a certificate
        """
        if arrived is None or not self.fair.any():
            return self
        fair = np.flatnonzero(self.fair)
        last = self.paths.take(fair)
        groups = np.unique(self.group[fair], return_inverse=True)[1]
        kept = since_drop(last.agreed[-1], last.eligible[-1], groups, arrived[self.row[fair]], least)
        still = np.zeros(len(self.fair), bool)
        still[fair[kept]] = True
        return replace(self, fair=still, outdated=int((~kept).sum()))

    def rows(self) -> CalibrationRows:
        """Return the fair rows for the gate; of a policy with one stage without the axis of stages."""
        fair = self.paths.take(self.fair)
        stage = slice(None) if len(fair.score) > 1 else 0
        return CalibrationRows(
            scores=fair.score[stage],
            agreed=fair.agreed[stage],
            predicted=None if self.predicted is None else self.predicted[:, self.fair][stage],
            eligible=fair.eligible[stage],
            groups=self.group[self.fair],
            answers=self.classes[fair.top][stage],
            truth=self.classes[self.truth[self.fair]],
            segments=None if self.segment is None else self.segment[self.fair],
        )

    def answered(self, found: Certificate) -> "Answered":
        """Return each row as answered by the stage that would handle it under a certificate."""
        stage = self.paths.answering(thresholds_of(found, self.classes, self.paths.top, self.segment))
        each = np.arange(len(stage))
        seen = {part.name: getattr(self.paths, part.name)[stage, each] for part in fields(Paths)}
        return Answered(**seen, stage=np.maximum(stage - self.spare, 0))

    def save(self, file: Path) -> None:
        """Write as npz, without pickle."""
        arrays = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "paths"}
        known = {name: value for name, value in arrays.items() if value is not None}
        paths = {f"path_{part.name}": getattr(self.paths, part.name) for part in fields(Paths)}
        np.savez_compressed(file, allow_pickle=False, **known, **paths)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            paths = Paths(**{part.name: arrays[f"path_{part.name}"] for part in fields(Paths)})
            known: dict[str, Any] = {part.name: arrays[part.name] for part in fields(cls) if part.name in arrays.files}
        plain = {name: value.item() for name, value in known.items() if value.ndim == 0}
        return cls(paths=paths, **(known | plain))


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Calibration rows, each as one stage answers it: the first that handles it, else the last.

    Parameters
    ----------
    top, second : indices of the two most probable labels, shape (n,)
    agreed : whether `top` is the teacher's label
    score : the acceptor's score, in a cascade on its path
    scope : scope score
    eligible : whether the stage's guards let it answer
    vetoed : whether one of them, the veto of the protected labels, does not
    stage : the stage, counted from 0
    """

    top: Ints
    second: Ints
    agreed: Bools
    score: Floats
    scope: Floats
    eligible: Bools
    vetoed: Bools
    stage: Ints

    def take(self, rows: Ints | Bools) -> "Answered":
        """Return the rows given by index or mask."""
        return Answered(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})
