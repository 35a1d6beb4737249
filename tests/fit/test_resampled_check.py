"""A task's own traces show whether its pipeline's certificate would have been wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tests.fit.test_pipeline import Undeclared, planted
from tests.support.tasks import Planted, write_task
from tracer_serve.components.registry import surrogates
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.progress import silent
from tracer_serve.fit.resampled_check import resampled_check
from tracer_serve.types import Inputs, Labels


class Limited(Undeclared):
    """Declares itself stable, and is not: it mixes its labels up where there are more rows than it can hold."""

    stable = True

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        return super().fit(inputs, np.roll(labels, 1) if len(labels) > 225 else labels)


def task_of(folder: Path, surrogate: str) -> Task:
    """Return a task of one cheap surrogate that accepts all or nothing."""
    gate = {"alpha": 0.8, "delta": 0.1, "families": ["global"], "scope": {"keep": 1.0}}
    return write_task(folder, gate=gate, surrogates=[surrogate], acceptors=["top1"], fit={"folds": 10})


def test_a_refit_that_differs_from_its_folds_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates of a model that its refit makes worse fall below on held-out rows; those of a sound one do not."""
    monkeypatch.setitem(surrogates._classes, "limited", Limited)
    rows = planted(480, noise=0.0)
    for surrogate, broken in (("limited", True), ("knn", False)):
        found = resampled_check(task_of(tmp_path, surrogate), rows, [Planted()], silent, runs=8)
        assert (len(found.trials), found.forward, found.broken) == (8, (), broken)
        assert found.fitted + found.truth == len(rows)


def test_traffic_that_changes_is_found_where_its_order_is_known(tmp_path: Path) -> None:
    """Labels that move on drift: fits on what came before each cut fall below on what came next."""
    rows = planted(600, noise=0.0)
    moved = np.arange(600) > 280
    labels = np.where(moved & (np.arange(600) % 2 == 0), np.roll(rows.labels, 1), rows.labels)
    task, ordered = task_of(tmp_path, "knn"), np.arange(1, 601)
    calm = resampled_check(task, replace(rows, arrived=ordered), [Planted()], silent, runs=1)
    drifting = resampled_check(task, replace(rows, labels=labels, arrived=ordered), [Planted()], silent, runs=1)
    assert (len(calm.forward), calm.drifts) == (5, False)
    assert sum(trial.surely_below(0.8, 0.1) for trial in drifting.forward) >= 1


def test_too_few_traces_are_an_error(tmp_path: Path) -> None:
    """Thirty rows cannot be parted into a fit and its truth."""
    with pytest.raises(FitError, match="30 traces that may calibrate are too few"):
        resampled_check(task_of(tmp_path, "knn"), planted(30), [Planted()], silent)
