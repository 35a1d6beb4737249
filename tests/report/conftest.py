"""Reports built from a real fit of the shipped traces, and from small vectors with planted truth."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from tracer_serve.components.factory import make_embedder
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.report.build import build_report
from tracer_serve.types import Ints, Labels, Text, Vectors

TRACES = Path(__file__).parents[2] / "configs" / "banking.traces.jsonl"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def make_task(**changes: Any) -> Task:
    """A task as its YAML would give it."""
    price = {"currency": "EUR", "prompt_per_1m": 0.4, "completion_per_1m": 1.6, "as_of": "2026-11-01"}
    teacher = {"type": "openai", "model": "m", "price": price}
    facts: dict[str, Any] = {"name": "banking", "surrogates": ["logreg"], "teacher": teacher} | changes
    facts["gate"] = {"group_by": "duplicate"} | facts.get("gate", {})  # made-up texts are of few templates
    return Task(Spec(**facts), Path("banking.yaml"), "")


class Looked:
    """An embedder that knows the vectors of its texts."""

    trainable = False
    fingerprint = "looked"

    def __init__(self, texts: Sequence[Text], vectors: Vectors) -> None:
        self.place = {text: i for i, text in enumerate(texts)}
        self.vectors = vectors

    def fit(self, texts: Sequence[Text]) -> Self:
        assert texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        return self.vectors[[self.place[text] for text in texts]]


@dataclass(frozen=True)
class Case:
    """A fit with its report, and which rows were tampered with."""

    task: Task
    fitted: Fitted
    texts: Sequence[Text]
    report: dict[str, Any]
    planted: Ints


def blobs(n: int, labels: int, seed: int, spread: float = 0.9, width: int = 24) -> tuple[list[Text], Labels, Vectors]:
    """Unit vectors around one centre per label; the texts name their label's topic."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, labels, n)
    centres = rng.normal(size=(labels, width))
    vectors = centres[codes] / np.sqrt(width) * 2.0 + spread * rng.normal(size=(n, width)) / np.sqrt(width)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    texts: list[Text] = [f"topic{code} question number {i} " + "more " * (i % 7) for i, code in enumerate(codes)]
    return texts, np.array([f"label_{code:02d}" for code in codes]), unit


def case_of(task: Task, texts: Sequence[Text], labels: Labels, vectors: Vectors, planted: Ints) -> Case:
    """Fit and report."""
    fitted = fit_policy(task, Rows.of(texts, labels), Looked(texts, vectors))
    shown = [texts[i] for i in fitted.calibration.row]
    return Case(task, fitted, shown, build_report(task, fitted, shown, []), planted)


def flipped(labels: Labels, count: int, seed: int) -> tuple[Labels, Ints]:
    """Replace the labels of `count` random rows by random other ones."""
    rng, changed = np.random.default_rng(seed), labels.copy()
    rows = rng.choice(len(labels), count, replace=False)
    for i in rows:
        changed[i] = rng.choice(np.setdiff1d(np.unique(labels), [labels[i]]))
    return changed, rows


@pytest.fixture(scope="session")
def banking() -> Case:
    """1,000 shipped traces with 20 planted teacher errors and one hostile text, fitted by n-grams and logreg."""
    rows = [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()[:1000]]
    texts: list[Text] = [row["input"] for row in rows]
    labels, planted = flipped(np.array([row["teacher"] for row in rows]), 20, seed=0)
    texts[int(planted[0])] = f"{HOSTILE} {texts[int(planted[0])]}"
    task = make_task(embedder="ngrams")
    fitted = fit_policy(task, Rows.of(texts, labels), make_embedder(task))
    return Case(task, fitted, texts, build_report(task, fitted, texts, []), planted)


@pytest.fixture(scope="session")
def small() -> Case:
    """600 vectors of six labels, some of them hard, six labels flipped; certifies part of them, fits in a second."""
    texts, labels, vectors = blobs(600, 6, seed=0, spread=1.0, width=8)
    changed, planted = flipped(labels, 6, seed=0)
    texts[int(planted[0])] = f"{HOSTILE} {texts[int(planted[0])]}"
    return case_of(make_task(), texts, changed, vectors, planted)
