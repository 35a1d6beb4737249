"""Simulated worlds that break the gate's assumptions: traffic with known truth, given to the real gate.

Nothing is trained: a world says how often the models of folds and the model that serves agree with the teacher, and the
parts of tracer-serve that have to cope with it (groups, folds, window, test, monitor) are the real ones. Every world
can also be played with the remedy switched off, by the gate that was released before: it must be caught.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Ints

ALPHA, DELTA = 0.95, 0.05
_SURE = 0.001  # of either kind, at each check
_EVERY = 50

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of a world.

    Parameters
    ----------
    wrong : share of the draw in which traffic under alpha is handled: 0 or 1, over many nights their share
    coverage : handled share
    """

    wrong: float
    coverage: float


Play = Callable[[Rng, bool], Draw]
"""Draw a world once; the flag: as released now, else without the remedy."""


@dataclass(frozen=True, slots=True)
class World:
    """A world, and whether the caller names the groups.

    Parameters
    ----------
    name : as in `bench.guarantee --worlds`
    grouped : whether groups or times are given; False: texts are grouped by default
    variant : what distinguishes worlds of one name
    limit : violation rate that is promised
    promised : False if nothing is promised, for lack of groups
    """

    name: str
    grouped: bool
    play: Play
    variant: str = ""
    limit: float = DELTA
    promised: bool = True


@dataclass(frozen=True, slots=True)
class WorldRow:
    """One gate in one world.

    Parameters
    ----------
    system : ``tracer-serve``, or ``before``: without the remedy
    alpha, delta : the promise
    limit : violation rate that is promised in this world
    runs : draws until the verdict was decided
    violation_rate, low, high : mean share of wrong draws, with the exact 95 % interval of a share
    coverage : mean handled share
    """

    world: str
    variant: str
    grouped: bool
    system: str
    alpha: float
    delta: float
    limit: float
    runs: int
    violation_rate: float
    low: float
    high: float
    coverage: float


def run_world(world: World, runs: int, *, remedy: bool = True, seed: int = 0) -> WorldRow:
    """Draw a world until it is clear on which side of its limit the violation rate lies, at most `runs` times."""
    rng = np.random.default_rng(seed)
    draws: list[Draw] = []
    while len(draws) < runs:
        draws.append(world.play(rng, remedy))
        if len(draws) % _EVERY == 0:
            low, high = interval(sum(draw.wrong for draw in draws), len(draws), _SURE)
            if low > world.limit or high < world.limit:
                break
    rate = sum(draw.wrong for draw in draws) / len(draws)
    low, high = interval(rate * len(draws), len(draws), 0.025)
    return WorldRow(
        world=world.name,
        variant=world.variant,
        grouped=world.grouped,
        system="tracer-serve" if remedy else "before",
        alpha=ALPHA,
        delta=DELTA,
        limit=world.limit,
        runs=len(draws),
        violation_rate=rate,
        low=low,
        high=high,
        coverage=float(np.mean([draw.coverage for draw in draws])),
    )


def interval(wrong: float, runs: int, each: float) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a rate, `each` on either side."""
    low = 0.0 if wrong <= 0 else float(beta.ppf(each, wrong, runs - wrong + 1))
    high = 1.0 if wrong >= runs else float(beta.ppf(1 - each, wrong + 1, runs - wrong))
    return low, high


def handles(
    rng: Rng, agreed: Bools, groups: Ints | None = None, *, delta: float = DELTA, attempt: int = 0
) -> tuple[bool, float]:
    """Certify rows with an uninformative score; return whether anything is handled, and the coverage."""
    settings = GateSettings(ALPHA, delta, seed=int(rng.integers(2**31)), attempt=attempt)
    found = certify(CalibrationRows(rng.random(len(agreed)), agreed, groups=groups), settings)
    return found.certified, found.handled_share
