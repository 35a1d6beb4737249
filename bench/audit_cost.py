"""Cost of audits and late alarms at `audit_rate: auto` and at the best fixed rate. Part of `bench.monitor`.

A version handles n requests a day at an agreement of .96 and drops to .82 once in `EVERY_DAYS` days. A day costs its
audits; a drop costs the excess disagreements until the alarm, each as much as `WRONG` teacher calls. The monitor's
delay is simulated after calm times of different lengths, without the boost of the rate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tracer_serve.gate.monitor import advance, alternatives, log_evidence
from tracer_serve.serving.audit_rate import auto_rate
from tracer_serve.types import Floats

ALPHA, DELTA, CALM, DROPPED = 0.95, 0.05, 0.96, 0.82
EVERY_DAYS, WRONG = 120, 10.0
TRAFFIC = (200, 10_000, 10_000_000)
RATES = np.geomspace(1e-6, 1.0, 121)
_CALM_AUDITS = (0, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


@dataclass(frozen=True, slots=True)
class CostRow:
    """Total cost a day in teacher calls.

    Parameters
    ----------
    handled : requests a day
    auto, best : cost at `auto` and at the fixed rate that costs least, with their rates
    """

    handled: int
    auto_rate: float
    auto: float
    best_rate: float
    best: float

    @property
    def ratio(self) -> float:
        """Cost at `auto` relative to the best fixed rate."""
        return self.auto / self.best


def costs(runs: int = 200, seed: int = 0) -> Iterator[CostRow]:
    """Yield a row per traffic."""
    calm, delay = delays(runs, seed)
    for handled in TRAFFIC:
        fixed = np.array([cost(handled, float(rate), calm, delay) for rate in RATES])
        best, rate = int(fixed.argmin()), auto_rate(handled)
        yield CostRow(handled, rate, cost(handled, rate, calm, delay), float(RATES[best]), float(fixed[best]))


def cost(handled: int, rate: float, calm: Floats, delay: Floats) -> float:
    """Return the cost a day at a rate, in teacher calls; a drop that is not found costs until the next one."""
    audits = rate * handled
    found_after = np.interp(np.log1p(audits * EVERY_DAYS), np.log1p(calm), delay) / audits
    late = handled * (ALPHA - DROPPED) * WRONG * min(float(found_after), EVERY_DAYS) / EVERY_DAYS
    return audits + late


def delays(runs: int, seed: int) -> tuple[Floats, Floats]:
    """Return numbers of calm audits, and the mean audits from a drop that follows them to the alarm."""
    rng, number = np.random.default_rng(seed), 0
    bets = np.full((runs, len(alternatives(ALPHA))), -np.inf)
    found = []
    for calm in _CALM_AUDITS:
        while number < calm:
            number += 1
            bets = advance(bets, number, rng.random(runs) < CALM, ALPHA)
        found.append(_delay(bets, number, rng))
    return np.array(_CALM_AUDITS, float), np.array(found)


def _delay(bets: Floats, number: int, rng: np.random.Generator) -> float:
    first, after = np.zeros(len(bets)), 0
    while not first.all():
        after += 1
        bets = advance(bets, number + after, rng.random(len(bets)) < DROPPED, ALPHA)
        rings = log_evidence(bets, number + after) >= -np.log(DELTA)
        first[(first == 0) & rings] = after
    return float(first.mean())


def lines(rows: Sequence[CostRow]) -> Iterator[tuple[str, ...]]:
    """Yield the rows as text: traffic, rate and cost of both, ratio."""
    for row in rows:
        own = f"{row.auto_rate:.2%}", f"{row.auto:,.0f}"
        yield f"{row.handled:,}", *own, f"{row.best_rate:.2%}", f"{row.best:,.0f}", f"{row.ratio:.2f}"
