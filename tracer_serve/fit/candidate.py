"""Candidates: a surrogate with an acceptor, or two of them as a cascade, with cross-fitted scores."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from tracer_serve.fit.cross_fit import OutOfFold
from tracer_serve.gate.binomial import p_values
from tracer_serve.gate.fixed_sequence import ThresholdCounts, accepts, cascade_grid
from tracer_serve.gate.scope_guard import scope_thresholds
from tracer_serve.policy.score_scale import Scale
from tracer_serve.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class CandidateStage:
    """A surrogate with an acceptor (None: the family `global`).

    Parameters
    ----------
    surrogate, acceptor : their places in the spec
    score : cross-fitted scores, shape (n,)
    guard : least scope score that it may answer, where it is alone
    open : rows that it reads whole and whose predicted class the class floor lets pass, shape (n,)
    flat : whether the acceptor's score is uninformative, so that all rows get the same score instead
    vetoed : rows that may carry a protected label and would get another one (`fit.protection`), shape (n,)
    limits : rank of the probability of each protected label above which the served policy vetoes, shape (p,)
    """

    surrogate: int
    acceptor: int | None
    oof: OutOfFold
    score: Floats
    guard: float
    open: Bools
    flat: bool = False
    vetoed: Bools | None = None
    limits: tuple[float, ...] = ()

    @property
    def may_answer(self) -> Bools:
        """Rows that class floor and veto let pass, shape (n,)."""
        return self.open if self.vetoed is None else self.open & ~self.vetoed


@dataclass(frozen=True)
class Paths:
    """Stages' results on n rows, in the order in which they are asked: what the gate certifies.

    Parameters
    ----------
    score : all stages' scores on one path, shape (s, n)
    agreed : whether the stage's label is the teacher's, shape (s, n)
    top, second : class indices of its two most probable labels, shape (s, n)
    eligible : whether the guards let it answer, shape (s, n)
    vetoed : whether one of them, the veto of the protected labels, does not
    scope : scope scores, shape (s, n)
    """

    score: Floats
    agreed: Bools
    top: Ints
    second: Ints
    eligible: Bools
    vetoed: Bools
    scope: Floats

    def take(self, rows: Ints | Bools) -> "Paths":
        """Return the rows given by index or mask."""
        return Paths(**{part.name: getattr(self, part.name)[..., rows] for part in fields(self)})

    def answering(self, threshold: Floats) -> Ints:
        """Return the first stage that handles a row, the last where none does, shape (n,).

        Parameters
        ----------
        threshold : least score that is handled, shape (s, n)
        """
        handles = self.eligible & accepts(self.score, threshold)
        first: Ints = np.where(handles.any(axis=0), handles.argmax(axis=0), len(handles) - 1)
        return first


@dataclass(frozen=True, eq=False)
class Candidate:
    """One part, or several as a cascade.

    Parameters
    ----------
    parts : in the order in which they are asked
    score : their scores on one path, shape (s, n)
    scales : what puts the scores of new rows there, one per part
    guards : least scope scores that they may answer, one per part
    """

    parts: tuple[CandidateStage, ...]
    score: Floats
    scales: tuple[Scale, ...]
    guards: tuple[float, ...]

    @classmethod
    def single(cls, part: CandidateStage) -> "Candidate":
        """Return a part alone: its path is its own score."""
        return cls((part,), part.score[None], (Scale.identity(),), (part.guard,))

    @classmethod
    def cascade(
        cls, first: CandidateStage, second: CandidateStage, fold: Ints, *, kept: float, keep: float
    ) -> "Candidate":
        """Put the scores of two parts on one scale, fitted for each row on the other folds, and for new rows on all.

        Parameters
        ----------
        kept : share of the rows, those that it scores highest, on which the first may answer
        keep : share of the rows that the two scope guards let pass together
        """
        score = np.full((2, len(fold)), np.nan)
        for held_out in np.unique(fold):
            test = fold == held_out
            for number, scale in enumerate(_scales(first, second, ~test, kept)):
                score[number, test] = scale((first, second)[number].score[test])
        scales = _scales(first, second, np.ones(len(fold), bool), kept)
        answers = np.stack([first.may_answer & (first.score >= scales[0].least), np.ones(len(fold), bool)])
        guards = scope_thresholds(np.stack([first.oof.scope, second.oof.scope]), answers, keep)
        return cls((first, second), score, scales, (float(guards[0]), float(guards[1])))

    @cached_property
    def paths(self) -> Paths:
        """The stages' results on each row."""

        def stack(value: Callable[[CandidateStage], Any]) -> Any:
            return np.stack([value(part) for part in self.parts])

        scope = stack(lambda part: part.oof.scope)
        open_, may_answer = stack(lambda part: part.open), stack(lambda part: part.may_answer)
        return Paths(
            score=self.score,
            agreed=stack(lambda part: part.oof.agreed),
            top=stack(lambda part: part.oof.top),
            second=stack(lambda part: part.oof.second),
            eligible=(scope >= np.array(self.guards)[:, None]) & may_answer,
            vetoed=open_ & ~may_answer,
            scope=scope,
        )


def _scales(first: CandidateStage, second: CandidateStage, rows: Bools, kept: float) -> tuple[Scale, Scale]:
    score = first.score[rows]
    finite = score[np.isfinite(score)]
    least = float(np.quantile(finite, 1.0 - kept)) if len(finite) else math.inf
    return Scale.fit(score, first.oof.agreed[rows], least), Scale.fit(second.score[rows], second.oof.agreed[rows])


def reach(paths: Paths, alpha: float, delta: float) -> float:
    """Return the largest share of best rows whose agreement is at least alpha by an exact bound at delta.

    A yardstick for comparing candidates, not a certificate: it looks at every threshold on the same rows.
    """
    return reached(paths, alpha, delta)[0]


def reached(paths: Paths, alpha: float, delta: float) -> tuple[float, float]:
    """Return `reach`, and the share of rows that the first stage answers at that threshold."""
    guarded = np.where(paths.eligible, paths.score, np.nan)
    grid = cascade_grid(guarded)
    tally = ThresholdCounts.of(guarded, grid)
    n, k = tally.counts(np.ones_like(paths.agreed)), tally.counts(paths.agreed)
    passing = np.flatnonzero(p_values(k, n, alpha) <= delta)
    if not len(passing):
        return 0.0, 0.0
    loosest = passing[n[passing] == n[passing].max()][-1]  # where the first stage answers most
    is_first = np.zeros_like(paths.agreed)
    is_first[0] = True
    rows = paths.score.shape[1]
    return float(n[loosest] / rows), float(tally.counts(is_first)[loosest] / rows)
