"""The promise against known truth: the violation rate is at most delta, and wrong gates are caught."""

import math

import numpy as np
import pytest

from tests.gate.worlds import Gate, World, most_allowed, threshold_of, violations, worlds
from tracer_serve.gate.binomial import p_values
from tracer_serve.gate.certify import certify
from tracer_serve.gate.fixed_sequence import ThresholdCounts, threshold_grid
from tracer_serve.gate.group_sample import numbered, one_each
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats

pytestmark = pytest.mark.slow

DRAWS = 400
CASES = [(0.9, 0.05, 300), (0.9, 0.1, 2000), (0.95, 0.05, 300), (0.95, 0.05, 2000), (0.99, 0.05, 2000)]
NAMES = [world.name for world in worlds(0.9)]


def piloted(scores: Floats, agreed: Bools, alpha: float, delta: float, seed: int) -> float:
    """Start where a pilot of the rows says."""
    return threshold_of(certify(CalibrationRows(scores, agreed), GateSettings(alpha=alpha, delta=delta, seed=seed)))


def foretold(scores: Floats, agreed: Bools, alpha: float, delta: float, seed: int) -> float:
    """Start where a function of the score says that was fixed before the draw, however wrong it is."""
    del seed
    predicted = np.clip(alpha + 0.02 * np.sin(7 * np.nan_to_num(scores, posinf=0.0)), 0, 1)
    return threshold_of(certify(CalibrationRows(scores, agreed, predicted), GateSettings(alpha=alpha, delta=delta)))


def pointwise(scores: Floats, agreed: Bools, alpha: float, delta: float, seed: int) -> float:
    """A wrong gate: the loosest threshold that passes by itself, uncorrected for having looked at all of them."""
    del seed
    grid = threshold_grid(scores)
    tally = ThresholdCounts.of(scores, grid)
    passed = np.flatnonzero(p_values(tally.counts(agreed), tally.counts(np.ones_like(agreed)), alpha) <= delta)
    return float(grid[passed[-1]]) if len(passed) else math.inf


def best_of_candidates(scores: Floats, agreed: Bools, alpha: float, delta: float, seed: int) -> float:
    """A wrong gate: certify eight candidates' scores on the same rows and keep whichever passed."""
    rng = np.random.default_rng(seed)
    candidates = [scores, *(rng.random(len(scores)) for _ in range(7))]
    return min(foretold(candidate, agreed, alpha, delta, seed) for candidate in candidates)


def start_from_own_labels(scores: Floats, agreed: Bools, alpha: float, delta: float, seed: int) -> float:
    """A wrong gate: the walk starts where the calibration labels themselves look best."""
    del seed
    return threshold_of(
        certify(CalibrationRows(scores, agreed, agreed.astype(float)), GateSettings(alpha=alpha, delta=delta))
    )


def world_named(name: str, alpha: float) -> World:
    """Look a world up."""
    return next(world for world in worlds(alpha) if world.name == name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("alpha", "delta", "n"), CASES)
@pytest.mark.parametrize("gate", [piloted, foretold])
def test_false_certificates_are_at_most_delta(gate: Gate, name: str, alpha: float, delta: float, n: int) -> None:
    """In no world does the gate certify traffic under alpha in more than delta of the draws."""
    found = violations(gate, world_named(name, alpha), alpha=alpha, delta=delta, n=n, draws=DRAWS)
    assert found <= most_allowed(delta, DRAWS)


@pytest.mark.parametrize("gate", [pointwise, best_of_candidates, start_from_own_labels])
def test_wrong_gates_are_caught(gate: Gate) -> None:
    """Three gates that are wrong on purpose exceed what the same test allows."""
    found = violations(gate, world_named("uninformative", 0.95), alpha=0.95, delta=0.05, n=2000, draws=DRAWS)
    assert found > most_allowed(0.05, DRAWS)


@pytest.mark.parametrize("told", [True, False])
def test_bursts_keep_delta_where_the_gate_knows_them(told: bool) -> None:
    """Bursts of four that agree or disagree together: as groups at most delta; each row by itself, far more."""
    rng, wrong, groups = np.random.default_rng(10), 0, np.arange(2000) // 4
    for seed in range(DRAWS):
        scores, agreed = rng.random(500)[groups] + 1e-6 * rng.random(2000), (rng.random(500) < 0.949)[groups]
        known = groups if told else None
        found = certify(CalibrationRows(scores, agreed, groups=known), GateSettings(alpha=0.95, delta=0.05, seed=seed))
        wrong += found.certified
    assert (wrong <= most_allowed(0.05, DRAWS)) is told


@pytest.mark.parametrize("every_row", [True, False])
def test_a_pool_of_messages_keeps_delta_where_every_row_counts(every_row: bool) -> None:
    """Ten messages make a third of the traffic and most of the errors: one row per message would promise too much."""
    rng, wrong = np.random.default_rng(11), 0
    for seed in range(DRAWS):
        common = rng.random(1000) < 0.33
        groups = np.where(common, rng.integers(0, 10, 1000), 10 + np.arange(1000))
        agreed = np.where(common, groups > 0, rng.random(1000) < 0.976)  # .33 * .9 + .67 * .976 = .951, then .949
        agreed &= rng.random(1000) < 0.998
        kept = np.ones(1000, bool) if every_row else one_each(numbered(groups, 1000), seed)
        scores = np.zeros(int(kept.sum()))
        found = certify(
            CalibrationRows(scores, agreed[kept], groups=groups[kept]), GateSettings(alpha=0.95, delta=0.05, seed=seed)
        )
        wrong += found.certified
    assert (wrong <= most_allowed(0.05, DRAWS)) is every_row


@pytest.mark.parametrize("name", ["informative", "a cliff", "informative ties"])
def test_informative_scores_are_certified(name: str) -> None:
    """A gate that kept its promise by abstaining would fail here: good scores are nearly always certified."""
    world, rng = world_named(name, 0.9), np.random.default_rng(0)
    certified = [piloted(*world.draw(rng, 2000), 0.9, 0.05, seed) < math.inf for seed in range(100)]
    assert np.mean(certified) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_lower_bound_holds_together_with_the_certificate(name: str) -> None:
    """Where a certificate was given, its bound is above the truth in at most delta of all draws."""
    world, rng, wrong = world_named(name, 0.9), np.random.default_rng(7), 0
    for seed in range(DRAWS):
        found = certify(CalibrationRows(*world.draw(rng, 1000)), GateSettings(alpha=0.9, delta=0.05, seed=seed))
        wrong += found.certified and world.true_agreement(found.threshold) < found.lower_bound - 1e-9
    assert wrong <= most_allowed(0.05, DRAWS)


def test_every_class_keeps_its_own_promise() -> None:
    """Per class: each class just under alpha is certified in at most delta of the draws."""
    rng, names = np.random.default_rng(8), np.array(["a", "b", "c"])
    wrong = dict.fromkeys(map(str, names), 0)
    for seed in range(DRAWS):
        answers = rng.choice(names, 900, p=[0.6, 0.3, 0.1])
        agreed = rng.random(900) < 0.899
        found = certify(
            CalibrationRows(rng.random(900), agreed, answers=answers),
            GateSettings(alpha=0.9, delta=0.05, seed=seed, per_class=True),
        )
        for row in found.classes:
            wrong[row.label] += row.certified
    assert max(wrong.values()) <= most_allowed(0.05, DRAWS)


def test_a_cascade_is_certified_as_one_policy() -> None:
    """Two stages on one path, together just under alpha at every threshold, pass in at most delta of the draws."""
    rng, wrong = np.random.default_rng(9), 0
    for seed in range(DRAWS):
        agreed = rng.random((2, 1500)) < 0.949
        found = certify(CalibrationRows(rng.random((2, 1500)), agreed), GateSettings(alpha=0.95, delta=0.05, seed=seed))
        wrong += found.certified
    assert wrong <= most_allowed(0.05, DRAWS)
