"""Banking77 as ten days of traffic, calm or with a teacher that changes its labels; results of an arm per day."""

from dataclasses import dataclass

import numpy as np

from bench.data import Dataset, Part
from tracer_serve.types import Bools, Labels

ALPHA, DELTA, DAYS, START, CALLS = 0.95, 0.05, 10, 2_000, 1_000
DRIFT_DAY, SWAPPED = 6, 8


@dataclass(frozen=True, slots=True)
class World:
    """Banking77 in one random order: the starting traces, the days, and held-out rows.

    Parameters
    ----------
    labels : the teacher's label of every row, on each day
    """

    name: str
    seed: int
    pool: Part
    labels: tuple[Labels, ...]

    def day(self, number: int) -> slice:
        """Return the rows that come on a day, counted from 1."""
        return slice(START + (number - 1) * CALLS, START + number * CALLS)


@dataclass(frozen=True, slots=True)
class Day:
    """Results of one arm on one day.

    Parameters
    ----------
    coverage : share of the day's calls that was handled
    saved : share of the day's calls that cost no teacher call, net of audits
    agreement : agreement of the morning's policy on the unseen rows that it handles; None: it handles none
    lived : agreement of the calls handled on this day
    reported : agreement that the system itself reports in the morning
    noise : standard error of `reported` less `agreement`, both being shares of finite samples
    audits : number of audits on this day
    alarm_after : audits of this day until the alarm, if there was one
    alarm_median, alarm_late : expected audits until an alarm, from the monitor's state of that morning: median, 95 %
    reopened : calls of this day until the gate was opened again
    """

    world: str
    arm: str
    seed: int
    day: int
    coverage: float
    saved: float
    agreement: float | None
    lived: float | None
    reported: float | None
    noise: float | None = None
    audits: int = 0
    alarm_after: int | None = None
    alarm_median: float | None = None
    alarm_late: float | None = None
    reopened: int | None = None
    system: str = "tracer-serve"
    dataset: str = "banking77"
    alpha: float = ALPHA
    delta: float = DELTA


def worlds(data: Dataset, seed: int) -> dict[str, World]:
    """Return the calm world, and the one with drift, in one random order."""
    order = np.random.default_rng(seed).permutation(len(data.train) + len(data.test))
    texts = [*data.train.texts, *data.test.texts]
    labels = np.concatenate([data.train.labels, data.test.labels])[order]
    vectors = np.concatenate([data.train.vectors, data.test.vectors])[order]
    names, counts = np.unique(labels, return_counts=True)
    often = names[np.argsort(-counts, kind="stable")[:SWAPPED]]
    moved = labels.copy()
    for old, new in zip(often, np.roll(often, 1), strict=True):
        moved[labels == old] = new
    pool = Part([texts[i] for i in order], labels, vectors)
    drift = tuple(moved if day >= DRIFT_DAY else labels for day in range(1, DAYS + 1))
    return {"calm": World("calm", seed, pool, (labels,) * DAYS), "drift": World("drift", seed, pool, drift)}


def agreement(given: Labels, handled: Bools, truth: Labels) -> float | None:
    """Return the share of the handled rows on which the answer is the teacher's; None if nothing is handled."""
    return float((given == truth)[handled].mean()) if handled.any() else None
