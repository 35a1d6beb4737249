"""A task so small that a refit takes a second: two colours, nearest neighbours, two folds."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tracer_serve.config.load import Task, load_task
from tracer_serve.storage.traces import new_id
from tracer_serve.types import Trace

_THINGS = [
    f"{a} {b} {c}"
    for a in ("rose", "brick", "cherry", "ruby")
    for b in ("blood", "fire", "wine", "flag")
    for c in ("now", "then", "here")
]
TEXTS = [f"red as a {thing}" for thing in _THINGS] + [f"sky and sea {thing[::-1]}" for thing in _THINGS]
LABELS = ["red"] * len(_THINGS) + ["blue"] * len(_THINGS)


BY_TEXT = {"group_by": "duplicate"}  # made-up texts are of few templates


def write_rows(file: Path, texts: Sequence[str] = TEXTS, labels: Sequence[str] = LABELS) -> Path:
    """Write labelled rows as JSONL."""
    rows = [json.dumps({"input": text, "teacher": label}) for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def tiny_task(folder: Path, **spec: Any) -> Task:
    """Write and load the task; `spec` adds or overrides."""
    file = folder / "rows.jsonl"
    if not file.exists():
        write_rows(file)
    written: dict[str, Any] = {
        "name": "tiny",
        "surrogates": ["knn"],
        "acceptors": ["top1"],
        "fit": {"folds": 2},
        "gate": {"alpha": 0.8, "delta": 0.1},
        "teacher": {"type": "offline", "file": [file.name]},
        "traces": {"import": [file.name]},
        "state": str(folder / "state"),
    }
    path = folder / "task.yaml"
    spec["gate"] = BY_TEXT | spec.get("gate", written["gate"])
    path.write_text(yaml.safe_dump(written | spec), encoding="utf-8")
    return load_task(path)


def rows_now(n: int, *, fingerprint: str | None = None, **facts: Any) -> list[Trace]:
    """Return n labelled rows that came just now, half of each colour; `facts` override."""
    half = len(TEXTS) // 2
    picked = [(i // 2 % half) + half * (i % 2) for i in range(n)]
    own: dict[str, Any] = {"decision": "deferred", "label_source": "teacher", "teacher_fingerprint": fingerprint}
    return [
        Trace(
            id=new_id(),
            ts=datetime.now(UTC),
            task="tiny",
            input=f"{TEXTS[i]} {k}",
            **(own | {"teacher_label": LABELS[i]} | facts),
        )
        for k, i in enumerate(picked)
    ]
