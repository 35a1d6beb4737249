"""Check the certificate on a task's own traces: refit on resamples, and compare each certificate with held-out truth.

Groups are never divided. Where the order of arrival is known the fit is also repeated on older rows alone and judged on
those that came next, as traffic will be.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import Progress
from tracer_serve.gate.binomial import p_values
from tracer_serve.gate.group_sample import one_each
from tracer_serve.protocols import Embedder
from tracer_serve.types import Ints

_FIT_ROWS, _TRUTH_ROWS = 2000, 20_000
_CUTS = (0.5, 0.6, 0.7, 0.8, 0.9)
_STAGE = "refitting on resamples"


@dataclass(frozen=True, slots=True)
class Trial:
    """One refit, and how what it certified fares on rows that it has not seen.

    Parameters
    ----------
    certified, coverage : the certificate's; coverage 0 if nothing was certified
    tested : independent groups that were accepted in the certificate
    handled, agreements : held-out groups that it handles, one random row each, and agreements among them
    """

    certified: bool
    coverage: float
    tested: int
    handled: int
    agreements: int

    def below(self, alpha: float) -> bool:
        """Whether the held-out agreement is under alpha."""
        return self.certified and self.agreements < alpha * self.handled

    def surely_below(self, alpha: float, delta: float) -> bool:
        """Whether it is so beyond chance: alpha is rejected at delta by an exact test."""
        missed = self.handled - self.agreements
        return self.below(alpha) and float(p_values(missed, self.handled, 1.0 - alpha)) <= delta


@dataclass(frozen=True, slots=True)
class ResampledCheck:
    """How often a pipeline's certificate would have been wrong on this traffic.

    Parameters
    ----------
    alpha, delta : the promise
    rows, fitted, truth : fair rows; of these in each refit, and at most kept out of it
    basis : of the certificates
    trials : on random halves
    forward : on older rows, judged on what came next; empty if the order of arrival is not known
    """

    alpha: float
    delta: float
    rows: int
    fitted: int
    truth: int
    basis: str
    trials: tuple[Trial, ...]
    forward: tuple[Trial, ...]

    @property
    def below(self) -> int:
        """Trials whose held-out agreement is under alpha."""
        return sum(trial.below(self.alpha) for trial in self.trials)

    @property
    def expected(self) -> float:
        """Share of trials that may fall below where certificates are wrong with probability delta.

        A version at alpha is certified if its estimate is lucky by z(delta) standard errors of the calibration rows. A
        version that is good enough to be certified that often is judged on finitely many held-out rows as well: their
        error adds up, so more than delta of the trials fall below.
        """
        ratios = [trial.tested / trial.handled for trial in self.trials if trial.certified and trial.handled]
        z = NormalDist().inv_cdf(self.delta)
        return (
            float(np.mean([NormalDist().cdf(z / math.sqrt(1 + ratio)) for ratio in ratios])) if ratios else self.delta
        )

    @property
    def broken(self) -> bool:
        """Whether significantly many trials are below alpha (exact test at 2.5 %)."""
        return bool(self.trials) and float(p_values(self.below, len(self.trials), self.expected)) <= 0.025  # noqa: PLR2004

    @property
    def drifts(self) -> bool:
        """Whether what came next agreed on less than alpha, beyond chance, after most of the cuts."""
        wrong = sum(trial.surely_below(self.alpha, self.delta) for trial in self.forward)
        return wrong > len(self.forward) / 2


def resampled_check(
    task: Task, rows: Rows, embedders: Sequence[Embedder], progress: Progress, *, runs: int = 40, seconds: float = 300.0
) -> ResampledCheck:
    """Refit on random halves of the fair rows' groups, and on older rows, and judge on the others.

    Parameters
    ----------
    rows : labelled traces; those that do not calibrate are left out
    runs : refits on random halves
    seconds : wall time after which no further one starts

    Raises
    ------
    FitError
        If there are too few rows to part.
    """
    rows = rows.take(np.flatnonzero(rows.calibrates)).grouped(task.spec.gate.group_by)
    if len(np.unique(rows.group)) < 4 * task.spec.fit.folds:
        raise FitError(f"{len(rows):,} traces that may calibrate are too few: one half is fitted, the other judges")
    began, trials = time.monotonic(), []
    splits = [*_cuts(rows), *_halves(rows, runs, task.spec.fit.seed)]
    forward = len(splits) - runs
    basis = ""
    for number, (fit, truth) in enumerate(splits):
        progress(_STAGE, number, len(splits))
        if number > forward and time.monotonic() - began > seconds:
            break
        trial, basis = _trial(task, rows, fit, truth, embedders)
        trials.append(trial)
    progress(_STAGE, len(splits), len(splits))
    gate, (fit, truth) = task.spec.gate, splits[-1]
    promise = gate.alpha, gate.delta, len(rows), len(fit), len(truth)
    return ResampledCheck(*promise, basis, tuple(trials[forward:]), tuple(trials[:forward]))


def _halves(rows: Rows, runs: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows of a fit and of its truth: the groups dealt at random, rows in their order."""
    group = rows.group
    for run in range(runs):
        rank = np.random.default_rng((seed, run)).permutation(int(group.max()) + 1)[group]
        order = np.argsort(rank, kind="stable")
        half = int(np.searchsorted(rank[order], np.median(rank)))  # a group is never divided
        fit, truth = order[:half], order[half:]
        yield np.sort(_whole(fit, group, _FIT_ROWS)), np.sort(truth[:_TRUTH_ROWS])


def _whole(rows: Ints, group: Ints, most: int) -> Ints:
    """Return at most that many rows, without the last group if it was cut."""
    if len(rows) <= most:
        return rows
    kept: Ints = rows[:most][group[rows[:most]] != group[rows[most]]]
    return kept


def _cuts(rows: Rows) -> Iterator[tuple[Ints, Ints]]:
    """Yield older rows and those that came next, without what shares a group with the older ones."""
    arrived = rows.arrived
    if arrived is None or not arrived.any():
        return
    order, group = np.argsort(arrived, kind="stable"), rows.group
    for cut in _CUTS:
        end = int(cut * len(order))
        fit, later = order[max(0, end - _FIT_ROWS) : end], order[end : int((cut + 0.1) * len(order))]
        yield fit, later[~np.isin(group[later], group[fit])]


def _trial(task: Task, rows: Rows, fit: Ints, truth: Ints, embedders: Sequence[Embedder]) -> tuple[Trial, str]:
    fitted = fit_policy(task, rows.take(fit), embedders[0], beside=embedders[1:])
    policy, found = fitted.policy, fitted.certificate
    if not found.certified:
        return Trial(False, 0.0, 0, 0, 0), found.basis
    single = truth[one_each(np.unique(rows.group[truth], return_inverse=True)[1], task.spec.fit.seed)]
    judged = rows.take(single)
    seen = policy.score(judged.texts)
    right = policy.classes[seen.top] == judged.labels
    tested = round(found.n * found.groups / found.rows)
    return Trial(True, found.coverage, tested, int(seen.handled.sum()), int(right[seen.handled].sum())), found.basis
