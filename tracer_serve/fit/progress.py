"""Progress of a fit: the name of the running stage, and an estimate of the time left.

A stage is a number of like steps: parts of the texts to embed, folds of a surrogate. Until its first step has ended, a
stage takes what is expected of it, times the pace of the machine: that of a short piece of work, and of the folds as
soon as one has ended. After that, what was measured counts. Steps that run at the same time end in rounds: the first of
ten folds on two cores says what five rounds take.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

EMBEDDING_S = 3e-3
"""Expected seconds of embedding a text: a small sentence encoder on a CPU."""
CERTIFYING_S = 0.5
"""Expected seconds of calling the gate."""
FINAL_FOLDS, REPORT_FOLDS = 1.25, 2.2
"""Expected time of the fit on all rows, and of writing a version with its report, in folds."""
_ROW_S, _CELL_S = 8e-4, 3e-6  # CPU of a blend's fold, per row and per row and label: 8,000 x 3, 9,960 x 64, 6,000 x 593
_BLEND = 3.0  # cost of a blend in units of logreg's
_PROBE_S = 0.028  # what `machine_pace` does took on the machine on which the above was measured, an AMD EPYC core


class Progress(Protocol):
    """What wants to know how far a piece of work is."""

    def __call__(self, stage: str, done: int, total: int, left_s: float | None = None, /) -> None:
        """Take the stage's name, its steps done and in all, and the estimated seconds to the end of all stages."""


def silent(stage: str, done: int, total: int, left_s: float | None = None, /) -> None:
    """Report no progress."""


def fold_seconds(cost: float, rows: int, labels: int) -> float:
    """Return the expected seconds of fitting a surrogate on one fold and asking it about the rest.

    Parameters
    ----------
    cost : of a fit, in units of logreg's
    """
    return cost / _BLEND * rows * (_ROW_S + _CELL_S * labels)


@dataclass(slots=True)
class _Stage:
    """One kind of steps.

    Parameters
    ----------
    expected_s : seconds of a step, before one is measured
    abreast : steps that run at the same time
    sets_pace : whether its speed tells how fast the other stages will be
    began, last : when the first step began, and when the last one ended; None: not yet
    """

    steps: int
    expected_s: float
    abreast: int
    sets_pace: bool
    done: int = 0
    began: float | None = None
    last: float | None = None

    @property
    def step_s(self) -> float | None:
        """Measured seconds of a step, None before one has ended."""
        if self.began is None or self.last is None or not self.done:
            return None
        return (self.last - self.began) / math.ceil(self.done / self.abreast)

    def left(self, now: float, pace: float) -> float:
        """Return the seconds left; `pace` is what measured stages took of what was expected of them."""
        if self.done >= self.steps:
            return 0.0
        gone, step = now - (now if self.began is None else self.began), self.step_s
        rounds = math.ceil(self.steps / self.abreast)
        # a first round that takes longer than expected is about to end
        each = max(pace * self.expected_s, gone) if step is None else step
        return max(0.0, rounds * each - gone)


@dataclass(slots=True)
class Timeline:
    """All stages of a fit, those to come included; reports each step with the time left.

    Parameters
    ----------
    report : called after each step
    clock : seconds that only grow
    pace : seconds that the machine takes for one that is expected, as in `machine_pace`

    Examples
    --------
    >>> now = iter([0.0, 20.0])
    >>> work = Timeline(lambda *told: print(told), lambda: next(now))
    >>> work.plan("folds", 10, expected_s=1.0, abreast=2)
    >>> work.step("folds", "fold 1 of 10")
    ('fold 1 of 10', 0, 10, 5.0)
    >>> work.step("folds", "fold 2 of 10", 1)
    ('fold 2 of 10', 1, 10, 80.0)
    """

    report: Progress
    clock: Callable[[], float] = time.monotonic
    pace: float = 1.0
    _stages: dict[str, _Stage] = field(default_factory=dict)

    @classmethod
    def of(cls, progress: Progress) -> "Timeline":
        """Return a timeline that reports to a callback; a timeline is one already."""
        return progress if isinstance(progress, Timeline) else cls(progress, pace=machine_pace())

    def __call__(self, stage: str, done: int, total: int, left_s: float | None = None, /) -> None:
        """Report work that is not planned."""
        self.report(stage, done, total, left_s)

    def plan(self, key: str, steps: int, *, expected_s: float, abreast: int = 1, sets_pace: bool = False) -> None:
        """Add a stage; its steps may begin at any time.

        Parameters
        ----------
        expected_s : seconds of a step
        abreast : steps that run at the same time
        sets_pace : whether its speed tells how fast the other stages will be
        """
        self._stages[key] = _Stage(max(1, steps), expected_s, max(1, min(abreast, steps)), sets_pace)

    def drop(self, key: str) -> None:
        """Forget a stage that will not be run, or not to its end."""
        self._stages.pop(key, None)

    def step(self, key: str, name: str, done: int = 0) -> None:
        """Report the number of finished steps of a stage; 0: the first one begins now."""
        stage, now = self._stages[key], self.clock()
        stage.began = now if stage.began is None or not done else stage.began
        stage.done, stage.last = done, now if done else None
        self.report(name, done, stage.steps, sum(one.left(now, self._pace) for one in self._stages.values()))

    @property
    def _pace(self) -> float:
        known = [(one.step_s, one.expected_s) for one in self._stages.values() if one.sets_pace]
        measured = [(took, expected) for took, expected in known if took is not None and expected > 0]
        expected_s = sum(expected for _, expected in measured)
        return sum(took for took, _ in measured) / expected_s if expected_s else self.pace


def machine_pace() -> float:
    """Return how long a short piece of work takes here, load included, in units of where stages were measured."""
    began = time.perf_counter()
    table = np.random.default_rng(0).standard_normal((512, 512), np.float32)
    for _ in range(4):
        table = np.tanh(table @ table)
    np.sort(table, axis=None)
    return (time.perf_counter() - began) / _PROBE_S
