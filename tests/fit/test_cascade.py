"""A cheap surrogate first, a stronger one for what it defers, certified as one policy."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tasks import Planted, write_task
from tracer_serve.components.registry import surrogates
from tracer_serve.config.load import Task
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.gating import settings_of
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certify import certify
from tracer_serve.policy.policy import Policy
from tracer_serve.report.alpha_sweep import whatif_of
from tracer_serve.types import Inputs, Labels, Vectors

ASKED: list[int] = []


class Slow:
    """Reads the label off the text, however hard the vector makes it; costs a tenth of a millisecond per row."""

    cost = 9.0
    stable = True

    def __init__(self) -> None:
        self.classes_: Labels = np.empty(0, np.str_)

    def fit(self, inputs: Inputs, labels: Labels) -> "Slow":
        del inputs
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        ASKED.append(len(inputs))
        proba = np.full((len(inputs), len(self.classes_)), 0.02, np.float32)
        for i, text in enumerate(inputs.texts):
            np.linalg.eigvals(np.ones((24, 24)) * i)  # what makes it dear
            words = str(text).split()
            proba[i, int(words[3]) % len(self.classes_)] = 1.0 - 0.0001 * (
                int(words[2]) % 100
            )  # no two rows quite alike
        total: Vectors = proba / proba.sum(axis=1, keepdims=True)
        return total


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    surrogates.register("slow")(Slow)
    yield
    surrogates._classes.pop("slow")


def readable(n: int, seed: int = 0) -> Rows:
    """Rows whose vector tells the label on two thirds; the text tells it always, but for one in fifty."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n)
    hardness = np.where(rng.random(n) < 0.33, 0.5, 0.2 * rng.random(n))
    told = np.where(rng.random(n) < 0.02, (label + 1) % 4, label)
    texts = [
        f"{(y + (h == 0.5) * rng.integers(2)) % 4} {h:.6f} {i} {t}"
        for i, (y, h, t) in enumerate(zip(label, hardness, told, strict=True))
    ]
    return Rows.of(texts, [f"label{y}" for y in label])


def fit(
    folder: Path, *, mode: str = "cross_fit", families: tuple[str, ...] = ("l2d", "cascade")
) -> tuple[Task, Fitted]:
    gate: dict[str, Any] = {"alpha": 0.9, "delta": 0.05, "mode": mode, "families": families, "scope": {"keep": 1.0}}
    task = write_task(folder, gate=gate, surrogates=["slow", "logreg"])
    return task, fit_policy(task, readable(1500), Planted())


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_a_cascade_is_certified_served_and_kept(tmp_path: Path, mode: str) -> None:
    """Both stages answer, the promise holds on new rows, the disk changes nothing, the certificate shows each share."""
    _, fitted = fit(tmp_path, mode=mode)
    found = fitted.certificate
    assert found.certified
    assert [row.surrogate for row in found.stages] == ["logreg", "slow"]
    assert sum(row.share for row in found.stages) == pytest.approx(found.coverage, abs=0.03)
    assert found.stages[0].asked == 1.0
    assert found.stages[1].asked == pytest.approx(1 - found.stages[0].share)
    assert found.stages[0].cpu_ms < found.stages[1].cpu_ms
    new = readable(2000, seed=1)
    seen = fitted.policy.score(new.texts)
    right = fitted.policy.classes[seen.top] == new.labels
    for number in (0, 1):
        assert (seen.handled & (seen.stage == number)).mean() > 0.1
    assert right[seen.handled].mean() >= 0.9
    fitted.policy.save(tmp_path / "model")
    again = Policy.load(tmp_path / "model", Planted()).score(new.texts)
    np.testing.assert_array_equal(again.handled, seen.handled)
    np.testing.assert_allclose(again.score, seen.score)


def test_the_second_stage_sees_only_what_the_first_defers(tmp_path: Path) -> None:
    """On the request path a dear surrogate is not asked about rows that the cheap one handles."""
    _, fitted = fit(tmp_path)
    new = readable(500, seed=2)
    ASKED.clear()
    seen = fitted.policy.score(new.texts)
    left = int((~(seen.handled & (seen.stage == 0))).sum())
    assert ASKED.copy() == [left]
    assert ASKED[0] < 350


def test_calibration_rows_say_which_stage_answers(tmp_path: Path) -> None:
    """The rows of the certificate carry the stage, and a stage's rows are those the table counts."""
    _, fitted = fit(tmp_path)
    seen = fitted.answered
    handled = seen.eligible & (seen.score >= fitted.certificate.threshold)
    for number, row in enumerate(fitted.certificate.stages):
        assert row.n == (handled & (seen.stage == number)).sum()
        assert row.agreements == (handled & seen.agreed & (seen.stage == number)).sum()


def test_the_cascade_handles_no_less_than_its_second_stage(tmp_path: Path) -> None:
    """What the cheap first stage saves in time costs at most a point of coverage."""
    _, together = fit(tmp_path)
    _, alone = fit(tmp_path, families=("l2d",))
    assert [c.family for c in together.candidates if c.status == "chosen"] == ["cascade"]
    assert together.certificate.coverage > alone.certificate.coverage - 0.01


def test_a_what_if_of_a_cascade_is_the_gates_own_call(tmp_path: Path) -> None:
    """The sweep over alpha reproduces the certificate from the stored rows, and uses both stages at another alpha."""
    task, fitted = fit(tmp_path)
    fitted.calibration.save(tmp_path / "calibration.npz")
    again = replace(fitted, calibration=Calibration.load(tmp_path / "calibration.npz"))
    own = certify(again.calibration.rows(), settings_of(task, "cross_fit", rivals=again.calibration.rivals))
    assert own.walk == fitted.certificate.walk
    swept = whatif_of(task, again)
    laxer = list(swept["alpha"]).index(0.8)
    assert swept["coverage"][laxer] >= fitted.certificate.coverage
    settings = replace(settings_of(task, "cross_fit", rivals=again.calibration.rivals), alpha=0.8)
    assert swept["coverage"][laxer] == certify(fitted.calibration.rows(), settings).coverage
