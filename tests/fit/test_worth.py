"""Heavy candidates have to be worth their time."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fit.test_pipeline import planted
from tests.support.tasks import Planted, write_task
from tracer_serve.components.registry import surrogates
from tracer_serve.config.task import Spec
from tracer_serve.fit.budget import Budget, NotWorthItError
from tracer_serve.fit.candidate import Candidate, CandidateStage, Paths
from tracer_serve.fit.comparison import CandidateResult
from tracer_serve.fit.cross_fit import OutOfFold
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.types import Inputs, Labels, Vectors

FITS: list[int] = []


class Heavy:
    """Reads the label off the text; says that it is dear, and sleeps a little as it fits."""

    cost = 100.0
    stable = True

    def __init__(self) -> None:
        self.classes_: Labels = np.empty(0, np.str_)

    def fit(self, inputs: Inputs, labels: Labels) -> "Heavy":
        FITS.append(len(inputs))
        time.sleep(0.05)
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        proba = np.full((len(inputs), len(self.classes_)), 0.01, np.float32)
        for i, text in enumerate(inputs.texts):
            proba[i, int(str(text).split()[0]) % len(self.classes_)] = 1.0
        total: Vectors = proba / proba.sum(axis=1, keepdims=True)
        return total


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    surrogates.register("heavy")(Heavy)
    FITS.clear()
    yield
    surrogates._classes.pop("heavy")


def outcome(folder: Path, rows: Rows, **fit: float) -> CandidateResult:
    """Fit with a cheap and the heavy candidate, and return what became of the heavy one."""
    gate = {"alpha": 0.97, "delta": 0.1, "scope": {"keep": 1.0}}
    task = write_task(folder, surrogates=["heavy", "logreg"], fit={"folds": 4, **fit}, gate=gate)
    found = fit_policy(task, rows, Planted()).candidates
    return next(result for result in found if result.surrogate == "heavy")


def test_what_the_cheap_ones_defer_is_worth_a_training(tmp_path: Path) -> None:
    """Where a fifth of the rows is out of the cheap one's reach, the heavy one is compared."""
    assert outcome(tmp_path, planted(800)).status in {"chosen", "compared"}
    assert len(FITS) >= 4


def test_nothing_is_trained_where_the_cheap_ones_leave_nothing(tmp_path: Path) -> None:
    """On an easy task it is not even begun, and the result says what it could have bought."""
    found = outcome(tmp_path, planted(800, noise=0.0))
    assert (found.status, FITS) == ("skipped", [])
    assert "at most the 0.0 % of traffic" in found.reason
    assert "fit.heavy_floor of 10.0 %" in found.reason


def test_a_floor_of_zero_always_tries(tmp_path: Path) -> None:
    """The floor is the operator's."""
    assert outcome(tmp_path, planted(800, noise=0.0), heavy_floor=0.0).status in {"chosen", "compared"}


def test_one_training_tells_that_the_others_do_not_fit() -> None:
    """It ends after the first of its trainings, and says what that took and what is left."""
    spec = Spec.model_validate({"name": "test", "teacher": "offline", "fit": {"budget_s": 1.0}})
    part = cheap_part()
    claim = Budget(spec, np.ones(100, bool)).admit(100.0, [part], 50, never)
    time.sleep(0.05)
    with pytest.raises(NotWorthItError, match=r"50 more do not fit .* at most the 100\.0 % of traffic"):
        claim.trained()


def test_a_light_candidate_is_never_cut_short() -> None:
    """Whatever it takes, one that is not heavy ends its cross-fit: only its start is the budget's."""
    spec = Spec.model_validate({"name": "test", "teacher": "offline", "fit": {"budget_s": 0.01}})
    claim = Budget(spec, np.ones(100, bool)).admit(2.0, [cheap_part()], 50, never)
    time.sleep(0.02)
    claim.trained()
    assert claim.done == 1


def test_a_small_rest_is_worth_it_where_the_cheap_ones_no_longer_grow(tmp_path: Path) -> None:
    """A rest under the floor that no trace will shrink, as it is noise, is given to the heavy one."""
    assert outcome(tmp_path, planted(1600), heavy_floor=0.9).status in {"chosen", "compared"}


@pytest.mark.parametrize(("deferred_at_half", "tried"), [(0.16, False), (0.08, True), (0.07, True)])
def test_a_small_rest_that_more_traces_will_shrink_is_left_to_them(deferred_at_half: float, tried: bool) -> None:
    """8 % deferred are under the floor: what half of the traces deferred decides, and the reason says so."""
    spec = Spec.model_validate({"name": "test", "teacher": "offline", "gate": {"alpha": 0.95, "delta": 0.1}})
    budget = Budget(spec, np.ones(10_000, bool))

    def admit() -> None:
        budget.admit(100.0, [cheap_part(10_000, 0.92)], 5, lambda _: paths_of(1 - deferred_at_half))

    def paths_of(share: float) -> Paths:
        return Candidate.single(cheap_part(10_000, share)).paths

    if tried:
        admit()
        return
    with pytest.raises(
        NotWorthItError, match=r"8\.0 % .* half of the traces they deferred 16\.0 %, with twice .* 4\.0 %"
    ):
        admit()


def never(part: CandidateStage) -> Paths:
    """Half of the traces are asked about only where that decides."""
    raise AssertionError(part)


def cheap_part(rows: int = 100, reaches: float = 0.0) -> CandidateStage:
    """What a candidate came to that agrees on that share of the rows and scores them higher, and on no other."""
    zero, all_rows = np.zeros(rows, np.int64), np.ones(rows, bool)
    agreed = np.arange(rows) < rows * reaches
    oof = OutOfFold(zero, zero, agreed, np.zeros(rows), np.zeros(rows, bool), ())
    return CandidateStage(0, None, oof, agreed.astype(float), -np.inf, all_rows)
