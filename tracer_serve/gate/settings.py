"""Settings of the gate, and the calibration set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self

import numpy as np

from tracer_serve.gate.certificate import Basis
from tracer_serve.types import Bools, Floats, Ints, Labels

Mode = Literal["strict", "cross_fit"]
Guarantee = Literal["probability", "overall"]
Spend = Literal["per_version", "series"]


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Position of a certificate in the series of a task's certificates.

    Parameters
    ----------
    index : counted from 1 over all versions
    attempt : counted from 1 over the attempts to open the gate after an alarm; 0 if none closed it
    """

    index: int = 1
    attempt: int = 0


def spent_delta(delta: float, spend: Spend = "per_version", index: int = 1) -> float:
    """Return the part of delta that the `index`-th certificate of a task may spend.

    ``series`` spends 6 delta / (pi^2 index^2), which sums to delta over all certificates there will ever be;
    ``per_version`` spends delta each time.

    Examples
    --------
    >>> round(spent_delta(0.05, "series", 1), 4)
    0.0304
    """
    return delta if spend == "per_version" else 6.0 * delta / (math.pi * index) ** 2


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Required agreement, delta, and the options of the test.

    Parameters
    ----------
    alpha, delta : required agreement; bound of the probability that a version below alpha is certified
    mode : how the scores were made, ``strict`` or ``cross_fit``; delta is proved with ``strict`` only
    min_coverage : least certified coverage that is worth a deployment
    guarantee : ``probability``, or ``overall`` (see `gate.risk_control`)
    per_class : certify each predicted class by itself
    protect : least recall of the system per protected teacher label (see `gate.protection`)
    segments : pattern of each kind of text that is certified by itself (see `gate.segments`)
    spend, index : see `spent_delta`
    attempt : as in `Ordinal`. The attempts after one alarm share delta as a series: of rows just under alpha, tested
        again and again, a fifth would open the gate in 60 days
    rivals : surrogates that competed on these rows. The test is made at ``delta / rivals``: choosing by the other
        folds alone is not enough, as a surrogate that is lucky in two folds is chosen for both. Of twelve that were
        all just under alpha one was certified in 10 % of draws at a delta of 5 %
    seed : of the draws of the pilot and of one row per group

    Raises
    ------
    ValueError
        If alpha or delta is not strictly between 0 and 1.
    """

    alpha: float
    delta: float = 0.05
    mode: Mode = "strict"
    min_coverage: float = 0.0
    guarantee: Guarantee = "probability"
    per_class: bool = False
    protect: Mapping[str, float] = field(default_factory=dict)
    segments: Mapping[str, str] = field(default_factory=dict)
    spend: Spend = "per_version"
    index: int = 1
    attempt: int = 0
    rivals: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0.0 < self.alpha < 1.0 and 0.0 < self.delta < 1.0):
            raise ValueError(f"alpha {self.alpha} and delta {self.delta} must lie strictly between 0 and 1")

    @property
    def stated_delta(self) -> float:
        """Part of delta that this certificate spends and states."""
        own = spent_delta(self.delta, self.spend, self.index)
        return spent_delta(own, "series", self.attempt) if self.attempt else own

    @property
    def basis(self) -> Basis:
        """What supports the stated delta."""
        return "proved" if self.mode == "strict" else "empirical"

    @property
    def tested_delta(self) -> float:
        """Level at which each test is made."""
        return self.stated_delta / self.rivals


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationRows:
    """The calibration set: n rows that are a fair sample of traffic, with their scores.

    Parameters
    ----------
    scores : acceptor scores, higher is safer, shape (n,); all equal: accept all or nothing. Or (s, n) for a cascade,
        stages in the order in which they are asked, on one path (`gate.fixed_sequence`)
    agreed : whether the answer equals the teacher's label, same shape
    predicted : predicted P(agree), same shape; decides only where the walk starts. It must be a function of the score
        that was fitted on other rows: bad predictions cost coverage only, predictions that have seen any of these
        labels cost the guarantee. Without it 5 % of the rows are spent on it (`gate.pilot`) and leave the certificate
    eligible : whether scope guard and class floor let the answer pass, same shape or (n,); others are never accepted
    groups : group of each row, shape (n,): rows with one cause, as bursts of near-duplicates. Each group counts as one
        row where that is the stricter view (`gate.walk_result.Counted`); without it each row is its own
    answers : the surrogate's label, same shape as the scores; needed for a certificate per class
    truth : the teacher's label, shape (n,); needed for protected labels
    segments : segment of each row, shape (n,); needed for a certificate per segment

    Raises
    ------
    ValueError
        If the shapes differ.
    """

    scores: Floats
    agreed: Bools
    predicted: Floats | None = None
    eligible: Bools | None = None
    groups: Ints | None = None
    answers: Labels | None = None
    truth: Labels | None = None
    segments: Labels | None = None

    def __post_init__(self) -> None:
        shapes = [np.shape(part) for part in (self.scores, self.agreed, self.predicted) if part is not None]
        if len(set(shapes)) > 1:
            raise ValueError(f"scores, agreed and predicted differ in shape: {shapes}")

    def __len__(self) -> int:
        return int(np.shape(self.scores)[-1])

    @property
    def guarded(self) -> Floats:
        """Scores, with NaN for answers that are not eligible."""
        return self.scores if self.eligible is None else np.where(self.eligible, self.scores, np.nan)

    def take(self, rows: Ints | Bools) -> Self:
        """Return the rows given by index or mask."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{name: part[..., rows] for name, part in parts.items() if part is not None})
