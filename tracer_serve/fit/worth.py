"""Whether a heavy candidate is worth its time: what the cheap ones leave over, and what is left of the budget."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tracer_serve.compute import HEAVY
from tracer_serve.fit.candidate import Candidate, Part
from tracer_serve.fit.choose import reach
from tracer_serve.records import Bools
from tracer_serve.spec import Spec


class NotWorthItError(Exception):
    """Ends a heavy candidate's cross-fit; the message is for the report."""


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

    def admit(self, cost: float, before: Sequence[Part], trainings: int) -> "Claim":
        """Let a candidate begin.

        Parameters
        ----------
        cost : CPU of a fit in units of logreg's
        before : what cheaper candidates came to
        trainings : how many its comparison takes

        Raises
        ------
        NotWorthItError
            Where the budget is spent, or it is heavy and could buy too little.
        """
        claim, fit = Claim(self, trainings), self.spec.fit
        if not before:
            return claim
        if cost >= HEAVY:
            gate = self.spec.gate
            paths = [Candidate.single(part).paths.take(self.fair) for part in before]
            claim.buys = 1.0 - max(reach(one, gate.alpha, gate.delta) for one in paths)
            if claim.buys < fit.heavy_floor:
                raise NotWorthItError(f"{claim}, less than fit.heavy_floor of {fit.heavy_floor:.0%}")
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
    done : trainings that it has had
    """

    budget: Budget
    trainings: int
    buys: float | None = None
    done: int = 0
    _began: float = field(default_factory=time.monotonic)

    def trained(self) -> None:
        """Count a training, and of a heavy candidate see whether the others and the final one fit into the budget.

        Raises
        ------
        NotWorthItError
            Where they do not.
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
        return f"it could buy at most the {self.buys or 0:.1%} of traffic that cheaper candidates defer"
