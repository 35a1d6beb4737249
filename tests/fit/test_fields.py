"""Several fields under one certificate: an answer counts as right where all its fields are the teacher's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate.worlds import most_allowed
from tests.support.tasks import banking, write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.config.fields import canonical, values_of
from tracer_serve.config.load import Task
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Bools, Floats, Ints, Labels, Text, Vectors

ALPHA, DELTA, DRAWS = 0.9, 0.1, 60
COLOURS = ["red", "blue", "green"]
FIELDS = {"colour": {"labels": COLOURS}, "big": {"type": "boolean"}}


class Shown:
    """An embedder over texts of numbers, which are the vector."""

    trainable = False
    fingerprint = "shown"

    def fit(self, texts: Sequence[Text]) -> "Shown":
        """Learn nothing."""
        del texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return the numbers, shape (n, 4)."""
        return np.array([[float(word) for word in str(text).split()] for text in texts], np.float32)


def _world(texts: list[str]) -> tuple[Ints, Bools, Floats]:
    """Colour and size that the teacher means, and P(it says so) of each, shape (2, n).

    Both fields are noisy near their border, where the vector shows it, and everywhere else in 2 % of rows.
    """
    x = Shown().embed([*texts])
    pull = x[:, :2] @ np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]], np.float32)
    top = np.sort(pull, axis=1)
    sure = [0.98 - 0.5 * np.exp(-4.0 * (top[:, 2] - top[:, 1])), 0.98 - 0.45 * np.exp(-5.0 * np.abs(x[:, 2]))]
    return pull.argmax(axis=1), x[:, 2] > 0, np.array(sure)


def drawn(rows: int, seed: int) -> tuple[list[str], list[str]]:
    """Return texts and the teacher's labels."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"{v:.5f}" for v in row) for row in np.column_stack([rng.normal(size=(rows, 3)), np.ones(rows)])]
    colour, big, sure = _world(texts)
    kept = rng.random((2, rows)) < sure
    said, size = np.where(kept[0], colour, (colour + 1) % 3), big ^ ~kept[1]
    return texts, [canonical({"colour": COLOURS[c], "big": bool(b)}) for c, b in zip(said, size, strict=True)]


def chance(texts: list[str], given: Labels) -> Floats:
    """Return P(the teacher gives this whole answer) of each text."""
    colour, big, sure = _world(texts)
    values = [values_of(str(label)) for label in given]
    said = np.array([COLOURS.index(value["colour"]) for value in values])
    size = np.array([value["big"] for value in values])
    of_colour = np.select([said == colour, said == (colour + 1) % 3], [sure[0], 1 - sure[0]], 0.0)
    found: Floats = of_colour * np.where(size == big, sure[1], 1 - sure[1])
    return found


def of_fields(folder: Path, **changes: Any) -> Task:
    gate = {"alpha": ALPHA, "delta": DELTA, "min_coverage": 0.05, "scope": {"keep": 1.0}}
    return write_task(folder, **{"fields": FIELDS, "gate": gate, "acceptors": ["logistic"], "traces": {}, **changes})


def test_the_certificate_is_about_the_whole_answer(tmp_path: Path) -> None:
    """What is handled is a valid answer that equals the teacher's in all fields at least as often as promised."""
    task = of_fields(tmp_path)
    texts, labels = drawn(2000, 0)
    policy = fit_policy(task, Rows.of(texts, labels), Shown()).policy
    assert policy.certificate.certified
    assert policy.names == ("per_field", "logistic")
    fresh, truth = drawn(4000, 1)
    seen = policy.score(fresh)
    given = policy.classes[seen.top]
    assert set(values_of(str(given[0]))) == {"colour", "big"}
    assert seen.handled.mean() > 0.3
    assert (given == truth)[seen.handled].mean() >= ALPHA - 0.02
    assert (given == truth)[~seen.handled].mean() < 0.8


def test_a_policy_of_fields_survives_its_disk(tmp_path: Path) -> None:
    """A policy on real texts, written and read, decides alike; its labels are whole answers."""
    texts, intents = banking(300)
    fields = {"intent": {"labels": sorted(set(intents))}, "asks": {"type": "boolean"}}
    task = write_task(tmp_path, fields=fields, traces={}, teacher={"type": "openai", "model": "m"})
    labels = [canonical({"intent": y, "asks": "?" in t}) for t, y in zip(texts, intents, strict=True)]
    fitted = fit_policy(task, Rows.of(texts, labels), make_embedder(task))
    fitted.policy.save(tmp_path / "model")
    again = Policy.load(tmp_path / "model", make_embedder(task))
    probe = [*texts[:50], "", "zzz unseen words"]
    first, second = fitted.policy.score(probe), again.score(probe)
    assert first.top.tolist() == second.top.tolist()
    assert np.allclose(first.score, second.score, equal_nan=True)
    assert all(json.loads(str(label))["intent"] in set(intents) for label in again.classes)


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", ["logreg", "knn"])
def test_the_joint_promise_holds(tmp_path: Path, surrogate: str) -> None:
    """Over draws of traces, a version whose whole answers agree too rarely is certified at most delta of the time.

    P(the teacher agrees with the whole answer) is known for each text, so a draw is judged without noise.
    """
    violated = certified = 0
    for draw in range(DRAWS):
        folder = tmp_path / str(draw)
        folder.mkdir()
        task = of_fields(folder, surrogates=[surrogate])
        texts, labels = drawn(800, 10 * draw)
        policy = fit_policy(task, Rows.of(texts, labels), Shown()).policy
        fresh, _ = drawn(6000, 10 * draw + 1)
        seen = policy.score(fresh)
        certified += policy.certificate.certified
        if policy.certificate.certified and seen.handled.any():
            violated += chance(fresh, policy.classes[seen.top])[seen.handled].mean() < ALPHA
    assert certified > DRAWS / 3
    assert violated <= most_allowed(DELTA, DRAWS)
