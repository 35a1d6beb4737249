"""Texts that no calibration covered are not handled: other languages and scripts, and texts that are cut."""

import csv
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.foreign_texts import foreign_texts
from tests.support.tasks import write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.policy.policy import Policy

DATA = Path(os.environ.get("TRACER_BENCH_DATA", "missing"))
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="TRACER_BENCH_DATA names no folder of benchmark data"),
    pytest.mark.slow,
]
ROWS = 3000


def tweets() -> tuple[list[str], list[str]]:
    """Return the moderation tweets in an order of chance, with their labels."""
    with (DATA / "moderation.csv").open(encoding="utf-8", newline="") as lines:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(lines)]
    random.Random(0).shuffle(rows)
    return [text for text, _ in rows], [label for _, label in rows]


def fitted(folder: Path, embedder: dict[str, Any], texts: list[str], labels: list[str]) -> Policy:
    """Return a certified policy on some texts, with the default surrogate."""
    spec = {"embedder": embedder, "surrogates": ["blend"], "acceptors": ["logistic"], "fit": {"folds": 5}}
    gate = {"alpha": 0.9, "delta": 0.05, "min_coverage": 0.1}  # too long texts are no part of what is covered
    task = write_task(folder, rows=10, **(spec | {"gate": gate}))
    policy = fit_policy(task, Rows.of(texts, labels), make_embedder(task)).policy
    assert policy.certificate.certified
    return policy


@pytest.mark.parametrize("embedder", ["ngrams", "sentence_transformers"])
def test_foreign_and_long_texts_are_not_handled(tmp_path: Path, embedder: str) -> None:
    """Of 200 texts in four languages at most 2 % are handled, of 100 long ones none; of held-out tweets most are."""
    texts, labels = tweets()
    policy = fitted(tmp_path, {"type": embedder}, texts[:ROWS], labels[:ROWS])
    foreign = policy.score(foreign_texts())
    rest = texts[ROWS : ROWS + 4000]
    long = [" ".join(rest[40 * i : 40 * i + 40]) for i in range(100)]  # about 700 words each
    found = policy.score(long)
    own = policy.score(texts[-300:])
    print(  # noqa: T201  # the figures of the proof
        f"{embedder}: {foreign.handled.sum()} of {len(foreign.handled)} foreign texts handled,"
        f" {found.handled.sum()} of {len(long)} long ones, {own.handled.mean():.1%} of held-out tweets"
    )
    assert foreign.handled.sum() <= 0.02 * len(foreign.handled)
    assert {*found.reason} == {"too_long"}
    assert own.handled.mean() > 0.4


def test_long_texts_are_handled_where_windows_were_calibrated(tmp_path: Path) -> None:
    """A model that reads 16 tokens defers longer tweets; with windows they are read whole, calibrated, and handled."""
    texts, labels = tweets()
    model = {"type": "sentence_transformers", "max_tokens": 16}
    shares = {}
    for windows in (False, True):
        (tmp_path / str(windows)).mkdir()
        policy = fitted(tmp_path / str(windows), model | {"windows": windows}, texts[:1500], labels[:1500])
        shares[windows] = (policy.score(texts[-300:]).reason == "too_long").mean()
    print(f"too long: {shares}")  # noqa: T201
    assert shares[False] > 0.4
    assert shares[True] < 0.02
