"""A dear surrogate goes on from the version before."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fit.test_pipeline import planted
from tests.support.tasks import Planted, write_task
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates.knn import Knn
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.folds import lasting_holdout
from tracer_serve.fit.groups import row_hashes
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.types import Ints

TOLD: list[tuple[Path | None, Ints, Ints]] = []


class Goes(Knn):
    """Nearest neighbours that are told what they could go on from."""

    resumes = True

    def resume(self, folder: Path | None, seen: Ints, apart: Ints) -> None:
        TOLD.append((folder, seen, apart))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    surrogates.register("goes")(Goes)
    TOLD.clear()
    yield
    surrogates._classes.pop("goes")


def test_rows_of_the_certificate_are_apart_from_all_that_any_version_saw(tmp_path: Path) -> None:
    """Two strict fits, the second on twice the rows: it is told the first one's folder, and what calibrates is new."""
    task = write_task(tmp_path, surrogates=["goes"], gate={"alpha": 0.8, "delta": 0.1, "mode": "strict"})
    rows = planted(1200)
    rows.calibrates[::3] = False  # rows that may not calibrate now may do so later: they stay apart as well
    half = rows.take(np.arange(600))
    first = fit_policy(task, half, Planted())
    first.policy.save(tmp_path / "model")
    rows.calibrates[:] = True
    second = fit_policy(task, rows, Planted(), earlier=tmp_path / "model")
    (nothing, seen, _), (folder, _, apart) = TOLD
    assert nothing is None
    assert folder == tmp_path / "model" / "stage_0" / "surrogate"
    assert np.array_equal(np.sort(seen), np.sort(row_hashes([half.texts[i] for i in first.trained])))
    assert len(apart) == second.certificate.rows > first.certificate.rows
    assert not np.isin(apart, seen).any()


def test_a_new_row_never_moves_its_group_to_the_other_side(tmp_path: Path) -> None:
    """A row whose own hash would be held out stays with its group, which an earlier model has trained on."""
    gate = {"alpha": 0.8, "delta": 0.1, "mode": "strict", "group_by": "template"}
    task = write_task(tmp_path, surrogates=["goes"], gate=gate)
    codes = [f"2 0.1 your code is {number}" for number in range(1000, 1200)]
    alone = [bool(lasting_holdout([code], np.zeros(1, np.int64), 0.2, 0)[0]) for code in codes]
    old, new = codes[alone.index(False)], codes[alone.index(True)]
    rows = planted(600)
    texts, labels = [*rows.texts, old, new], [*rows.labels, "label2", "label2"]
    fit_policy(task, Rows.of(texts[:-1], labels[:-1]), Planted()).policy.save(tmp_path / "model")
    later = Rows.of(texts, labels)
    fit_policy(task, later, Planted(), earlier=tmp_path / "model")
    (_, seen, _), (_, trained, apart) = TOLD
    assert not np.isin(apart, seen).any()
    assert np.isin(row_hashes([new]), trained).all()


def test_a_cross_fit_never_goes_on(tmp_path: Path) -> None:
    """It certifies on every row, so that an earlier model has seen them all."""
    task = write_task(tmp_path, surrogates=["goes"])
    fit_policy(task, planted(300), Planted(), earlier=tmp_path)
    assert not TOLD
