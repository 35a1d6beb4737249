"""Small real tasks for the tests: written to disk as YAML, loaded as a user's would be."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import yaml

from tracer_serve.config.load import Task, load_task
from tracer_serve.types import Vectors

CONFIGS = Path(__file__).parents[2] / "configs"


def banking(rows: int = 1770) -> tuple[list[str], list[str]]:
    """Texts and labels of the shipped banking traces."""
    lines = (CONFIGS / "banking.traces.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
    pairs = [json.loads(line) for line in lines]
    return [pair["input"] for pair in pairs], [pair["teacher"] for pair in pairs]


def write_traces(file: Path, texts: Sequence[str], labels: Sequence[str]) -> Path:
    """Write traces as JSONL."""
    lines = [json.dumps({"input": t, "teacher": y}) for t, y in zip(texts, labels, strict=True)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def write_task(folder: Path, *, rows: int = 300, **changes: object) -> Task:
    """Write and load a task on the first banking traces, with its state inside the folder."""
    traces = write_traces(folder / "traces.jsonl", *banking(rows))
    spec: dict[str, object] = {
        "name": "test",
        "embedder": "ngrams",
        "surrogates": ["logreg"],
        "acceptors": ["top1"],
        "gate": {"alpha": 0.8, "delta": 0.1},
        "fit": {"folds": 4},
        "teacher": {"type": "offline", "file": [str(traces)]},
        "traces": {"import": [traces.name]},
        "state": str(folder / "state"),
    } | changes
    gate = spec["gate"]
    assert isinstance(gate, dict)
    spec["gate"] = {"group_by": "duplicate"} | gate  # made-up texts are of few templates
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_task(file)


class Planted:
    """An embedder over texts like ``"3 0.7"``: a class and a hardness; what is hard lies between two classes."""

    trainable = False
    fingerprint = "planted"

    def __init__(self, classes: int = 4, seed: int = 0) -> None:
        self.classes, self.seed = classes, seed

    def fit(self, texts: Sequence[object]) -> Self:
        """Learn nothing."""
        del texts
        return self

    def embed(self, texts: Sequence[object]) -> Vectors:
        """Return unit vectors, shape (n, classes)."""
        out: Vectors = np.zeros((len(texts), self.classes), np.float32)
        for i, text in enumerate(texts):
            label, hardness, *_ = str(text).split()
            out[i, int(label)] = 1.0 - float(hardness)
            out[i, (int(label) + 1) % self.classes] = float(hardness)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out
