"""Progress of a fit: names of stages, and the estimate of the time left."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.support.tasks import Planted, banking, write_task
from tracer_serve.components.factory import make_embedders
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.fold_data import part_ends
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import EMBEDDING_S, FINAL_FOLDS, REPORT_FOLDS, Timeline, fold_seconds


@dataclass(frozen=True)
class Recording:
    """A refit with the blend, as recorded on two cores under changing load.

    Parameters
    ----------
    embedding : when each 1,024 texts were embedded, seconds since the encoder was loaded
    folds : when each fold ended, since the first began
    tail : seconds of the fit on all rows, and of the report
    pace : seconds that its machine took for one that is expected
    """

    rows: int
    labels: int
    embedding: tuple[float, ...]
    folds: tuple[float, ...]
    tail: tuple[float, float]
    pace: float


RECORDINGS = {
    "8,000 tweets, MiniLM": Recording(
        rows=8_000,
        labels=3,
        embedding=(28.0, 51.1, 74.9, 109.2, 138.3, 153.8, 183.1, 203.6),
        folds=(22.4, 25.5, 40.5, 42.8, 60.9, 63.0, 85.2, 86.4, 99.8, 100.6),
        tail=(14.5, 43.1),
        pace=2.5,
    ),
    "1,770 banking queries, n-grams": Recording(
        rows=1_770,
        labels=14,
        embedding=(),
        folds=(2.87, 3.11, 5.59, 5.69, 8.60, 8.61, 11.08, 11.55, 14.08, 14.09),
        tail=(5.6, 5.4),
        pace=1.5,
    ),
}


def played(recorded: Recording, slower: float, pace: float) -> list[tuple[float, float, float]]:
    """Play a refit on a simulated clock; return when, estimated and true seconds left, at steps and between them.

    Parameters
    ----------
    slower : factor of all recorded times
    pace : what the machine's pace is taken for at first
    """
    now, told = [0.0], []
    clock = Timeline(lambda _stage, _done, _total, left=None, /: told.append((now[0], left)), lambda: now[0], pace)
    fold = fold_seconds(3.0, recorded.rows, recorded.labels)
    steps = {"folds": recorded.folds, "final": recorded.tail[:1], "report": recorded.tail[1:]}
    clock.plan("folds", len(recorded.folds), expected_s=fold, abreast=2, sets_pace=True)
    clock.plan("final", 1, expected_s=FINAL_FOLDS * fold)
    clock.plan("report", 1, expected_s=REPORT_FOLDS * fold)
    if recorded.embedding:
        steps = {"embedding": recorded.embedding, **steps}
        clock.plan("embedding", recorded.rows, expected_s=EMBEDDING_S)
    for stage, ends in steps.items():
        began = now[0]
        clock.step(stage, stage)
        rows = [0, *(min(1_024 * part, recorded.rows) for part in range(1, len(ends) + 1))]
        for done in part_ends(recorded.rows) if stage == "embedding" else range(1, len(ends) + 1):
            end = float(np.interp(done, rows, [0, *ends])) if stage == "embedding" else ends[done - 1]
            now[0] = began + slower * end
            clock.step(stage, stage, done)
    between = [((at + later) / 2, left - (later - at) / 2) for (at, left), (later, _) in pairwise(told)]
    return [(at, left, now[0] - at) for at, left in (*told, *between)]


@pytest.mark.parametrize("slower", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_estimate_is_within_half_from_the_tenth_second_on(name: str, slower: float) -> None:
    """From second 10 on, the time left is within a factor of 1.5, or of three seconds, on machines of any speed."""
    recorded = RECORDINGS[name]
    for at, left, true in played(recorded, slower, slower * recorded.pace):
        near = abs(left - true) <= 3 or true / 1.5 <= left <= 1.5 * true
        assert at < 10 or near, f"at {at:.1f} s {left:.1f} s were said to be left, and it was {true:.1f}"


def test_a_fit_names_what_it_does(tmp_path: Path) -> None:
    """Each fold is named with its surrogate; what follows is named too, and the last stages leave nothing."""
    task = write_task(tmp_path, surrogates=["knn", "logreg"], fit={"folds": 2})
    told: list[tuple[str, int, int]] = []
    left: list[float | None] = []

    def report(stage: str, done: int, total: int, left_s: float | None = None, /) -> None:
        told.append((stage, done, total))
        left.append(left_s)

    fit_policy(task, Rows.of(*banking(120)), make_embedders(task)[0], report)
    folds = [
        (f"fold {fold} of 2: {name}", done, 2) for name in ("knn", "logreg") for fold, done in ((1, 0), (2, 1), (2, 2))
    ]
    assert told == [*folds, ("fitting on all rows", 0, 1), ("fitting on all rows", 1, 1), ("certifying", 1, 1)]
    assert None not in left
    assert left[-1] == 0


def test_embedding_is_a_stage_of_its_own(tmp_path: Path) -> None:
    """A frozen encoder is loaded first, and then embeds in parts that are counted."""
    task = write_task(tmp_path, surrogates=["knn"], fit={"folds": 2})
    texts = [f"{i % 4} {i % 7 / 10} {i}" for i in range(600)]
    told: list[tuple[object, ...]] = []
    fit_policy(task, Rows.of(texts, [f"l{i % 4}" for i in range(600)]), Planted(), lambda *step: told.append(step[:3]))
    parts = [("embedding", done, 600) for done in (0, *part_ends(600))]
    assert told[: len(parts) + 2] == [("loading the encoder", 0, 600), *parts, ("fold 1 of 2: knn", 0, 2)]


def test_a_surrogate_that_fails_is_expected_no_more() -> None:
    """What is dropped from the plan takes no time of it."""
    told: list[float | None] = []
    clock = Timeline(lambda _stage, _done, _total, left=None, /: told.append(left), lambda: 0.0)
    clock.plan("knn", 2, expected_s=1.0)
    clock.plan("logreg", 2, expected_s=30.0)
    clock.step("knn", "knn")
    clock.drop("logreg")
    clock.step("knn", "knn")
    assert told == [62.0, 2.0]
