"""Synthetic traffic on which gates fail: traces to fit on, and fresh rows to judge on."""

from collections.abc import Callable

import numpy as np

from bench.data import Part
from tracer_serve.types import Floats, Ints

FRESH = 20_000
_DIMENSIONS = 24


def imbalance(seed: int, n: int = 10_000) -> tuple[Part, Part]:
    """More than 8,000 rows, two thirds of them in two classes that are hard to distinguish."""
    rng = np.random.default_rng(seed)
    share = np.array([0.4, 0.27, *np.full(8, 0.33 / 8)])
    centres = _centres(len(share), seed)
    centres[1] = centres[0] + 0.35 * centres[1]

    def part(rows: int, prefix: str) -> Part:
        label = rng.choice(len(share), rows, p=share)
        return _part(prefix, label, centres[label] + _noise(rng, rows, 0.5))

    return part(n, "trace"), part(FRESH, "fresh")


def unseen_labels(seed: int, n: int = 1500) -> tuple[Part, Part]:
    """A long tail: about 40 % of the labels of the fresh traffic are in no trace."""
    rng = np.random.default_rng(seed)
    share = 1.0 / (np.arange(250) + 1.0) ** 1.3
    centres = _centres(len(share), seed)

    def part(rows: int, prefix: str) -> Part:
        label = rng.choice(len(share), rows, p=share / share.sum())
        return _part(prefix, label, centres[label] + _noise(rng, rows, 0.5))

    return part(n, "trace"), part(FRESH, "fresh")


def near_duplicates(seed: int, n: int = 2000, burst: int = 4) -> tuple[Part, Part]:
    """Every text comes in a burst of near-duplicates with one label; fresh traffic brings new texts."""
    rng = np.random.default_rng(seed)
    centres = _centres(12, seed)

    def part(rows: int, prefix: str) -> Part:
        base = np.arange(rows) // burst
        label = rng.integers(0, len(centres), rows)[base]
        vectors = (centres[label] + _noise(rng, rows, 0.42)[base]) + _noise(rng, rows, 0.01)
        wrong = rng.random(rows)[base] < 0.06  # the teacher errs on a whole burst
        label = np.where(wrong, rng.integers(0, len(centres), rows)[base], label)
        texts = [f"{prefix} text {i}" + "!" * (j % burst) for j, i in enumerate(base)]
        return _part(prefix, label, vectors, texts)

    return part(n, "trace"), part(FRESH, "fresh")


SKEWED: dict[str, Callable[[int], tuple[Part, Part]]] = {
    "imbalance": imbalance,
    "unseen-labels": unseen_labels,
    "near-duplicates": near_duplicates,
}


def _centres(count: int, seed: int) -> Floats:
    centres = np.random.default_rng(seed + 10_000).normal(size=(count, _DIMENSIONS))
    unit: Floats = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    return unit


def _noise(rng: np.random.Generator, rows: int, size: float) -> Floats:
    noise: Floats = size * 2.0 * rng.normal(size=(rows, _DIMENSIONS)) / np.sqrt(_DIMENSIONS)
    return noise


def _part(prefix: str, label: Ints, vectors: Floats, texts: list[str] | None = None) -> Part:
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Part(texts or [f"{prefix} {i}" for i in range(len(label))], np.char.add("label ", label.astype(str)), unit)
