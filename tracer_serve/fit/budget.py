"""Decide whether a heavy candidate is worth its time.

It is if cheap candidates defer much, or defer something and no longer improve with more traces, and if time is left.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tracer_serve.config.task import Spec
from tracer_serve.fit.candidate import Candidate, CandidateStage, Paths, reach
from tracer_serve.gate.wording import percent
from tracer_serve.infra.parallel import HEAVY
from tracer_serve.types import Bools

_LEAST = 0.02  # share of traffic under which nothing is worth minutes, unless the floor says so


_GAIN = 0.1  # least relative reduction of what they defer with twice the traces; otherwise they have plateaued


@dataclass(frozen=True, slots=True)
class Growth:
    """A learning curve of two points; the report's has more (`report.plateau`).

    Parameters
    ----------
    half, whole : share of traffic that the candidate defers with half of the traces, and with all of them

    Examples
    --------
    >>> curve = Growth(half=0.16, whole=0.08)
    >>> curve.at_twice, curve.plateaued
    (0.04, False)
    """

    half: float
    whole: float

    @property
    def at_twice(self) -> float:
        """The share that twice as many traces would leave, by the power law through both points."""
        return self.whole * min(1.0, self.whole / self.half) if self.half > 0 else self.whole

    @property
    def plateaued(self) -> bool:
        """Whether twice the traces would hardly reduce it."""
        return self.whole - self.at_twice < _GAIN * self.whole

    def __str__(self) -> str:
        half, twice = percent(self.half), percent(self.at_twice)
        return f"with half of the traces they deferred {half}, with twice as many it would be {twice}"


class NotWorthItError(Exception):
    """Raised to end a heavy candidate's cross-fit; the message is for the report."""


@dataclass(slots=True)
class Budget:
    """The time of a comparison.

    Parameters
    ----------
    spec : with ``fit.budget_s`` and ``fit.heavy_floor``
    fair : rows that calibrate, shape (n,)
    """

    spec: Spec
    fair: Bools
    _started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.spec.fit.budget_s - (time.monotonic() - self._started)

    def admit(
        self, cost: float, before: Sequence[CandidateStage], trainings: int, at_half: Callable[[CandidateStage], Paths]
    ) -> "Claim":
        """Let a candidate begin.

        Parameters
        ----------
        cost : CPU of a fit in units of logreg's
        before : results of cheaper candidates
        trainings : how many its comparison takes
        at_half : compares a cheaper candidate on half of the rows; called only if the decision depends on it

        Raises
        ------
        NotWorthItError
            If the budget is spent, or a heavy candidate could gain too little.
        """
        claim, fit = Claim(self, trainings), self.spec.fit
        if not before:
            return claim
        if cost >= HEAVY:
            gate = self.spec.gate
            paths = [Candidate.single(part).paths.take(self.fair) for part in before]
            reached = [reach(one, gate.alpha, gate.delta) for one in paths]
            claim.buys = 1.0 - max(reached)
            if _LEAST <= claim.buys < fit.heavy_floor:
                half = at_half(before[reached.index(max(reached))])
                claim.growth = Growth(1.0 - reach(half, gate.alpha, gate.delta), claim.buys)
            if claim.buys < fit.heavy_floor and not (claim.growth and claim.growth.plateaued):
                raise NotWorthItError(f"{claim}, less than fit.heavy_floor of {percent(fit.heavy_floor)}")
        if self.left < 0:
            why = f"fit.budget_s of {fit.budget_s:g} s was spent on cheaper candidates"
            raise NotWorthItError(why if claim.buys is None else f"{why}; {claim}")
        return claim


@dataclass(slots=True)
class Claim:
    """One candidate's use of the budget.

    Parameters
    ----------
    trainings : how many its comparison takes
    buys : share of traffic that cheaper candidates defer; None for a candidate that is not heavy
    growth : how that share shrank with the traces, where it is under the floor
    done : trainings that it has had
    """

    budget: Budget
    trainings: int
    buys: float | None = None
    growth: Growth | None = None
    done: int = 0
    _began: float = field(default_factory=time.monotonic)

    def trained(self) -> None:
        """Count a training, and of a heavy candidate see whether the others and the final one fit into the budget.

        Raises
        ------
        NotWorthItError
            If they do not.
        """
        self.done += 1
        if self.buys is None:
            return
        each, more = (time.monotonic() - self._began) / self.done, self.trainings - self.done + 1
        if each * more > self.budget.left:
            raise NotWorthItError(
                f"one training takes {each:,.3g} s: {more} more do not fit into the"
                f" {max(0.0, self.budget.left):,.3g} s that are left of fit.budget_s; {self}"
            )

    def __str__(self) -> str:
        most = f"it could buy at most the {percent(self.buys or 0)} of traffic that cheaper candidates defer"
        return most if self.growth is None else f"{most} ({self.growth})"
