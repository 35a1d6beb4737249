"""Traffic whose true agreement above every threshold is known, so that a false certificate can be seen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from tracer_serve.gate.certificate import Certificate
from tracer_serve.types import Bools, Floats

_FINE = (np.arange(100_000) + 0.5) / 100_000

Curve = Callable[[Floats], Floats]
Gate = Callable[[Floats, Bools, float, float, int], float]
"""From scores, agreed, alpha, delta and a seed to a threshold; +inf where the gate abstains."""


@dataclass(frozen=True)
class World:
    """Rows with a latent u ~ U(0, 1), a score and a probability of agreement, both functions of u."""

    name: str
    score: Curve
    agreement: Curve

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Bools]:
        """Draw scores and agreements of n rows."""
        u = rng.random(n)
        return self.score(u), rng.random(n) < self.agreement(u)

    def true_agreement(self, threshold: float) -> float:
        """Return P(agree | accepted), NaN where nothing is ever accepted."""
        score = self.score(_FINE)
        accepted = np.isfinite(score) & (score >= threshold)
        return float(self.agreement(_FINE)[accepted].mean()) if accepted.any() else np.nan


def worlds(alpha: float) -> list[World]:
    """Return traffic that tempts a gate at this alpha."""
    under = alpha - 0.001

    def constant(u: Floats) -> Floats:
        return np.full_like(u, under)

    def rising(u: Floats) -> Floats:
        return 1.0 - 4.0 * (1.0 - alpha) * (1.0 - u) ** 1.5  # crosses alpha at a share of 73 %

    return [
        World("uninformative", lambda u: u, constant),
        World("informative", lambda u: u, rising),
        World("misleading", lambda u: -u, rising),
        World("ties", lambda u: np.floor(5 * u), constant),
        World("informative ties", lambda u: np.floor(5 * u).astype(np.float32), rising),
        World("constant score", np.zeros_like, constant),
        World("no score for some", lambda u: np.where(u < 0.1, np.nan, np.where(u > 0.97, np.inf, u)), constant),
        World("a cliff", lambda u: u, lambda u: np.where(u > 0.4, 0.5 + alpha / 2, alpha - 0.1)),
    ]


def violations(gate: Gate, world: World, *, alpha: float, delta: float, n: int, draws: int) -> int:
    """Count the draws in which the gate accepts traffic whose true agreement is under alpha."""
    rng = np.random.default_rng(n)
    wrong = 0
    for seed in range(draws):
        threshold = gate(*world.draw(rng, n), alpha, delta, seed)
        wrong += threshold < np.inf and world.true_agreement(threshold) < alpha - 1e-9
    return wrong


def most_allowed(delta: float, draws: int) -> int:
    """Return the largest count that a rate of delta explains at one in a thousand."""
    return int(binom.isf(0.001, draws, delta))


def threshold_of(certificate: Certificate) -> float:
    """Return what is handled from on."""
    return certificate.threshold if certificate.certified else np.inf
