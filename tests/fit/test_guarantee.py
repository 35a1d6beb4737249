"""The whole pipeline against known truth: candidates, cross-fit, choice, acceptor, gate, refit; not only the gate.

Each world says with which probability the teacher gives which label to an input, so that the true agreement of a served
policy among what it handles is an average over fresh inputs without label noise. A draw violates if a certified policy
has less than alpha. The same rows are certified naively too, on the rows that the served model was fitted on: a test
that could not fail is worse than none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from tests.gate.worlds import most_allowed
from tests.support.tasks import Planted, write_task
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Floats, Inputs, Labels, Text, Vectors

ALPHA, DELTA, DRAWS, FRESH = 0.9, 0.1, 120, 3000
UNDER = ALPHA - 0.005

Rng = np.random.Generator
Texts = list[Text]
Chance = Callable[[Texts, np.ndarray[tuple[int], np.dtype[np.str_]]], Floats]
"""From texts and given labels to P(the teacher gives this label | text)."""


@dataclass(frozen=True)
class World:
    """Traffic with known truth.

    Parameters
    ----------
    texts : draws n inputs
    label : the teacher's label of each
    chance : P(the teacher gives this label)
    n : traces of a fit
    """

    texts: Callable[[Rng, int], Texts]
    label: Callable[[Rng, Texts], list[str]]
    chance: Chance
    n: int = 500


def code(text: Text) -> int:
    return int(str(text).split()[0])


def hardness(text: Text) -> float:
    return float(str(text).split()[1])


def spread(rng: Rng, n: int, classes: int = 4, most: float = 0.3) -> Texts:
    """Inputs of equally frequent clear classes; what the vector shows is who is meant, not whether the teacher errs."""
    return [
        f"{c} {h:.4f} {i}"
        for c, h, i in zip(rng.integers(0, classes, n), most * rng.random(n), rng.integers(0, 10**9, n), strict=True)
    ]


def noisy(keep: Callable[[Text], float]) -> tuple[Callable[[Rng, Texts], list[str]], Chance]:
    """A teacher that gives the label meant with probability `keep`, else one of the three others."""

    def label(rng: Rng, texts: Texts) -> list[str]:
        return [f"label{code(t) if rng.random() < keep(t) else (code(t) + rng.integers(1, 4)) % 4}" for t in texts]

    def chance(texts: Texts, given: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Floats:
        meant = np.array([f"label{code(t)}" for t in texts])
        kept = np.array([keep(t) for t in texts])
        return np.where(given == meant, kept, (1 - kept) / 3)

    return label, chance


def pooled() -> World:
    """Traffic from a pool of texts that come again and again, punctuated differently, each with its one label."""

    def texts(rng: Rng, n: int) -> Texts:
        chosen = rng.integers(0, 400, n)
        return [
            f"{c % 4} {0.3 * (c * 0.618 % 1):.4f} {c}{'!?. '[v]}{'x' * (v % 2)}".strip()
            for c, v in zip(chosen, rng.integers(0, 4, n), strict=True)
        ]

    def of(text: Text) -> str:
        number = int("".join(filter(str.isdigit, str(text).split()[2])))
        wrong = (number * 7919) % 1000 < 1000 * 0.13
        return f"label{(code(text) + wrong) % 4}"

    def chance(texts: Texts, given: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Floats:
        found: Floats = (given == np.array([of(t) for t in texts])).astype(float)
        return found

    return World(texts, lambda _, found: [of(t) for t in found], chance)


def bursts(size: int = 4) -> World:
    """Every message is sent four times, punctuated differently; the teacher answers all four alike."""
    meant, chance = noisy(lambda _: UNDER)

    def texts(rng: Rng, n: int) -> Texts:
        found: Texts = [f"{text}{'!' * j}" for text in spread(rng, -(-n // size)) for j in range(size)]
        return found[:n]

    def label(rng: Rng, found: Texts) -> list[str]:
        return [y for y in meant(rng, found[::size]) for _ in range(size)][: len(found)]

    return World(texts, label, chance)


def unseen() -> World:
    """Four in ten rows have a label that no other row has; what is hard has one more often."""

    def rare(text: Text) -> float:
        return 0.1 if hardness(text) < 0.1 else 0.55

    def label(rng: Rng, texts: Texts) -> list[str]:
        return [f"once{rng.integers(10**12)}" if rng.random() < rare(t) else f"label{code(t)}" for t in texts]

    def chance(texts: Texts, given: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Floats:
        meant = np.array([f"label{code(t)}" for t in texts])
        return np.where(given == meant, [1 - rare(t) - 0.005 for t in texts], 0.0)

    return World(spread, label, chance)


def imbalanced() -> World:
    """One label has nearly all rows and the three others look just like it."""
    share = np.array([UNDER, *[(1 - UNDER) / 3] * 3])

    def label(rng: Rng, texts: Texts) -> list[str]:
        return [f"label{y}" for y in rng.choice(4, len(texts), p=share)]

    def chance(texts: Texts, given: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Floats:
        del texts
        found: Floats = share[[int(str(y)[-1]) for y in given]]
        return found

    return World(spread, label, chance, n=800)


WORLDS = {
    "uninformative": World(spread, *noisy(lambda _: UNDER)),
    "informative": World(spread, *noisy(lambda t: 0.97 if hardness(t) < 0.15 else 0.80)),
    "near duplicates": pooled(),
    "bursts": bursts(),
    "40 % unseen labels": unseen(),
    "imbalance": imbalanced(),
}


def true_agreement(policy: Policy, world: World, rng: Rng) -> float:
    """Return the mean probability that the teacher agrees, over fresh inputs that the policy handles."""
    texts = world.texts(rng, FRESH)
    seen = policy.score(texts)
    if not seen.handled.any():
        return 1.0
    return float(world.chance(texts, policy.classes[seen.top])[seen.handled].mean())


def naive(policy: Policy, rows: Rows) -> Policy:
    """Certify the served policy on the very rows it was fitted on."""
    seen = policy.score(rows.texts)
    agreed = policy.classes[seen.top] == rows.labels
    found = certify(CalibrationRows(seen.score, agreed), GateSettings(alpha=ALPHA, delta=DELTA))
    stages = tuple(replace(stage, scope_threshold=-np.inf) for stage in policy.stages)
    return replace(policy, certificate=found, stages=stages)


def violations(folder: Path, world: World, mode: str, *candidates: Any) -> tuple[int, int, int]:
    """Return how many draws violate, how many certify, and how many violate if certified naively."""
    gate = {"alpha": ALPHA, "delta": DELTA, "mode": mode, "min_coverage": 0.0, "scope": {"keep": 1.0}}
    task = write_task(folder, gate=gate, surrogates=[*candidates], acceptors=["logistic", "top1"])
    wrong = certified = fooled = 0
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        texts = world.texts(rng, world.n)
        rows = Rows.of(texts, world.label(rng, texts))
        policy = fit_policy(task, rows, Planted()).policy
        certified += policy.certificate.certified
        wrong += policy.certificate.certified and true_agreement(policy, world, rng) < ALPHA
        careless = naive(policy, rows)
        fooled += careless.certificate.certified and true_agreement(careless, world, rng) < ALPHA
    return wrong, certified, fooled


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
@pytest.mark.parametrize("world", WORLDS)
def test_the_pipeline_keeps_delta(tmp_path: Path, world: str, mode: str) -> None:
    """Certified policies lie under alpha in at most delta of the draws, within the binomial error of that."""
    wrong, certified, fooled = violations(tmp_path, WORLDS[world], mode, "knn", "logreg")
    print(f"{world}, {mode}: {wrong} of {DRAWS} violate, {certified} certify; naively {fooled} violate")  # noqa: T201
    assert wrong <= most_allowed(DELTA, DRAWS)
    if world == "uninformative" and mode == "cross_fit":
        assert fooled > most_allowed(DELTA, DRAWS)


class Picky:
    """Guesses class means thirty times and keeps the guess that agrees most on the tenth of the rows it holds out.

    A caricature of early stopping: what a blend then reads its weights off is as flattering as it gets.
    """

    cost = 100.0

    def __init__(self) -> None:
        self.classes_: Labels = np.empty(0, np.str_)
        self.held_out_ = np.empty(0, np.int64)
        self.means = np.empty((0, 0))

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        self.classes_, codes = encode(labels)
        rng = np.random.default_rng(0)
        self.held_out_ = np.sort(rng.permutation(len(codes))[: len(codes) // 10])
        kept = np.setdiff1d(np.arange(len(codes)), self.held_out_)
        x = inputs.embeddings
        centre = np.stack(
            [
                x[kept][codes[kept] == c].mean(axis=0) if c in codes[kept] else 0 * x[0]
                for c in range(len(self.classes_))
            ]
        )
        guesses = [centre + rng.normal(scale=0.3, size=centre.shape) for _ in range(30)]
        held = x[self.held_out_]
        self.means = max(guesses, key=lambda means: (np.argmax(held @ means.T, axis=1) == codes[self.held_out_]).mean())
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        found: Vectors = softmax(10 * inputs.embeddings @ self.means.T)
        return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
@pytest.mark.parametrize("world", ["uninformative", "informative"])
def test_a_blend_whose_member_chose_itself_keeps_delta(
    tmp_path: Path, world: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights learnt on the rows that stopped a dear member's training are choices of the fit, and no evidence."""
    monkeypatch.setitem(surrogates._classes, "picky", Picky)
    blend = {"type": "blend", "members": ["logreg", "picky"]}
    wrong, certified, _ = violations(tmp_path, WORLDS[world], mode, blend)
    print(f"{world}, {mode}: {wrong} of {DRAWS} violate, {certified} certify")  # noqa: T201
    assert wrong <= most_allowed(DELTA, DRAWS)
