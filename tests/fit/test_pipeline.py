"""From labelled rows to a certified policy."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tests.support.tasks import Planted, banking, write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import softmax
from tracer_serve.errors import ArtifactError, FitError
from tracer_serve.fit import holdout as strict
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Inputs, Labels, Vectors

N = 600


def planted(n: int = N, noise: float = 0.5, seed: int = 0) -> Rows:
    """Easy rows with their own label; hard rows (a fifth) with a coin-flipped one."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n)
    hard = rng.random(n) < 0.2
    hardness = np.where(hard, 0.5 + 0.01 * rng.standard_normal(n), 0.2 * rng.random(n))
    flipped = hard & (rng.random(n) < noise)
    texts = [f"{y} {h:.6f} {i}" for i, (y, h) in enumerate(zip(label, hardness, strict=True))]
    return Rows.of(texts, [f"label{(y + f) % 4}" for y, f in zip(label, flipped, strict=True)])


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_easy_rows_are_handled_and_hard_ones_deferred(tmp_path: Path, mode: str) -> None:
    """On planted data the policy certifies, covers about the easy share and keeps its promise on new rows."""
    task = write_task(tmp_path, gate={"alpha": 0.9, "delta": 0.05, "mode": mode, "scope": {"keep": 1.0}})
    fitted = fit_policy(task, planted(2000), Planted())
    new = planted(4000, seed=1)
    seen = fitted.policy.score(new.texts)
    agreed = fitted.policy.classes[seen.top] == new.labels
    assert fitted.certificate.certified
    assert fitted.certificate.mode == mode
    assert 0.7 < seen.handled.mean() < 0.98
    assert agreed[seen.handled].mean() >= 0.9 - 0.01
    assert agreed[~seen.handled].mean() < 0.75


def test_a_policy_survives_its_disk(tmp_path: Path) -> None:
    """A policy that was written and read decides alike, row by row."""
    task = write_task(tmp_path)
    texts, labels = banking(300)
    fitted = fit_policy(task, Rows.of(texts, labels), make_embedder(task))
    fitted.policy.save(tmp_path / "model")
    again = Policy.load(tmp_path / "model", make_embedder(task))
    assert again.certificate == fitted.certificate
    probe = [*texts[:50], "", "zzz unseen words"]
    for a, b in zip(fitted.policy.decide(probe), again.decide(probe), strict=True):
        assert (a.label, a.handled, a.reason) == (b.label, b.handled, b.reason)
        np.testing.assert_allclose(a.proba, b.proba, atol=1e-6)


def test_another_embedder_voids_the_certificate(tmp_path: Path) -> None:
    """A policy refuses to load under an embedder with another fingerprint."""
    task = write_task(tmp_path)
    other = Planted()
    fitted = fit_policy(task, planted(), other)
    fitted.policy.save(tmp_path / "model")
    stranger = Planted()
    stranger.fingerprint = "stranger"
    with pytest.raises(ArtifactError, match="certificate is void"):
        Policy.load(tmp_path / "model", stranger)


def test_calibration_rows_survive_their_disk(tmp_path: Path) -> None:
    """What the report is drawn from can be read back."""
    fitted = fit_policy(write_task(tmp_path), planted(), Planted())
    fitted.calibration.save(tmp_path / "calibration.npz")
    again = Calibration.load(tmp_path / "calibration.npz")
    np.testing.assert_array_equal(again.paths.score, fitted.calibration.paths.score)
    np.testing.assert_array_equal(again.classes, fitted.calibration.classes)
    assert len(fitted.vectors) == len(fitted.calibration.row)


class Broken:
    """A surrogate that never fits."""

    def fit(self, inputs: object, labels: object) -> None:
        del inputs, labels
        raise ValueError("no luck today")

    def predict_proba(self, inputs: object) -> None:
        raise AssertionError(inputs)


@pytest.fixture
def _broken() -> Iterator[None]:
    surrogates.register("broken")(Broken)
    yield
    surrogates._classes.pop("broken")


@pytest.mark.usefixtures("_broken")
def test_a_failing_candidate_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """One surrogate that raises is reported as failed with its reason; the fit goes on with the rest."""
    task = write_task(tmp_path, surrogates=["broken", "logreg"])
    fitted = fit_policy(task, planted(), Planted())
    failed = [c for c in fitted.candidates if c.status == "failed"]
    assert [(c.surrogate, c.reason) for c in failed] == [("broken", "ValueError: no luck today")]
    assert [c.surrogate for c in fitted.candidates if c.status == "chosen"] == ["logreg"]
    with pytest.raises(FitError, match="every surrogate failed:\n  broken: ValueError: no luck today"):
        fit_policy(write_task(tmp_path, surrogates=["broken"]), planted(), Planted())


def test_a_spent_budget_skips_and_says_so(tmp_path: Path) -> None:
    """Beyond fit.budget_s no further candidate is started, and the result says why."""
    task = write_task(tmp_path, surrogates=["knn", "logreg"], fit={"budget_s": 1e-9})
    results = fit_policy(task, planted(), Planted()).candidates
    skipped = [c for c in results if c.status == "skipped"]
    assert len({c.surrogate for c in results}) == 2
    assert len(skipped) == 1
    assert "budget_s" in skipped[0].reason


def test_rows_that_only_train_stay_out_of_the_certificate(tmp_path: Path) -> None:
    """A certificate counts the fair rows only."""
    rows = planted(1000)
    fair = np.arange(1000) < 400
    fitted = fit_policy(write_task(tmp_path), Rows(rows.texts, rows.labels, fair), Planted())
    assert fitted.certificate.rows + fitted.certificate.pilot == 400
    assert fitted.calibration.fair.sum() == 400


@pytest.mark.parametrize("most", [50_000, 40], ids=["all", "a sample"])
def test_no_duplicate_of_a_held_out_row_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """In `strict` mode a duplicate that does not calibrate, or was not drawn into the sample, is left out."""
    monkeypatch.setattr(strict, "CROSS_FIT_ROWS", most)
    once = planted(300, noise=0.0)
    texts, labels = [*once.texts] * 3, np.tile(once.labels, 3)
    rows = Rows(texts, labels, np.random.default_rng(0).random(900) < 0.5)
    task = write_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1, "mode": "strict"})
    fitted = fit_policy(task, rows, Planted())
    held_out = {texts[i] for i in fitted.calibration.row}
    assert 30 <= len(held_out) <= len(fitted.calibration.row) <= most
    assert held_out.isdisjoint(texts[i] for i in fitted.trained)
    assert len(fitted.trained) >= 3 * (300 - len(held_out))


def test_too_few_rows_abstain_or_say_how_many_are_needed(tmp_path: Path) -> None:
    """Three rows are an error that says what to bring; forty are a certificate that says how many more."""
    task = write_task(tmp_path, gate={"alpha": 0.95, "delta": 0.05})
    with pytest.raises(FitError, match="3 labelled traces are too few"):
        fit_policy(task, planted(3), Planted())
    certificate = fit_policy(task, planted(40, noise=0.0), Planted()).certificate
    assert not certificate.certified
    assert (certificate.reason, certificate.rows_needed > 0) == ("insufficient", True)


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_one_text_that_repeats_is_an_error_that_says_so(tmp_path: Path, mode: str) -> None:
    """What no fold may part cannot be compared on, whatever the number of rows."""
    task = write_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1, "mode": mode})
    with pytest.raises(FitError, match=r"200 labelled traces are one text|repeat few texts"):
        fit_policy(task, Rows.of(["2 0.1 again"] * 200, ["label2"] * 200), Planted())


def test_a_held_out_fifth_without_a_row_is_an_error_that_says_so(tmp_path: Path) -> None:
    """In `strict` mode a fifth of two rows that may calibrate is none."""
    task = write_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1, "mode": "strict"})
    rows = planted(200)
    with pytest.raises(FitError, match="none of the 2 that may calibrate"):
        fit_policy(task, Rows(rows.texts, rows.labels, np.arange(200) < 2), Planted())


class Undeclared:
    """Nearest class mean; says nothing about how its answers change from one training run to the next."""

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        self.classes_ = np.unique(labels)
        self.means_ = np.stack([inputs.embeddings[labels == label].mean(axis=0) for label in self.classes_])
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        found: Vectors = softmax(5 * inputs.embeddings @ self.means_.T)
        return found


@pytest.mark.parametrize(("stable", "basis"), [(False, "proved"), (True, "empirical")])
def test_what_may_differ_from_its_folds_is_tested_as_it_serves(
    tmp_path: Path, stable: bool, basis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cross-fit certifies a surrogate that declares itself stable; any other one is tested on held-out rows."""
    monkeypatch.setitem(surrogates._classes, "undeclared", type("Mean", (Undeclared,), {"stable": stable}))
    blend = {"type": "blend", "members": ["undeclared", "knn"]}
    task = write_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1}, surrogates=["knn", blend], acceptors=["top1"])
    assert fit_policy(task, planted(400), Planted()).certificate.basis == basis


def test_the_newest_rows_certify_in_strict_mode(tmp_path: Path) -> None:
    """Where the order of arrival is known, the certificate is on the last fifth, and nothing newer than it trains."""
    task = write_task(tmp_path, gate={"alpha": 0.8, "delta": 0.1, "mode": "strict"})
    rows, arrived = planted(300), np.maximum(np.arange(300) - 99, 0)  # the first hundred came in one file
    fitted = fit_policy(task, replace(rows, arrived=arrived), Planted())
    assert sorted(fitted.calibration.row) == list(range(240, 300))
    assert fitted.trained.max() < 240


def test_a_teacher_with_one_label_goes_through_the_same_gate(tmp_path: Path) -> None:
    """A single class certifies by evidence, not by definition: 300 agreeing rows do, 40 do not."""
    task = write_task(tmp_path, gate={"alpha": 0.95, "delta": 0.05, "scope": {"keep": 1.0}})
    for n, certified in ((300, True), (40, False)):
        rows = planted(n)
        fitted = fit_policy(task, Rows.of(rows.texts, ["only"] * n), Planted())
        assert fitted.certificate.certified is certified


def test_labels_seen_once_count_as_disagreements(tmp_path: Path) -> None:
    """A label with one row cannot be right out of fold, and its row stays in the certificate."""
    rows = planted(400, noise=0.0)
    labels = [f"rare{i}" if i < 40 else str(y) for i, y in enumerate(rows.labels)]
    fitted = fit_policy(write_task(tmp_path), Rows.of(rows.texts, labels), Planted())
    assert fitted.certificate.rows + fitted.certificate.pilot == 400
    assert not fitted.answered.agreed[:40].any()


def test_an_acceptor_that_tells_nothing_is_not_served(tmp_path: Path) -> None:
    """Where a learnt score shows no evidence all rows get one score, and the results say why."""
    rows = planted(800, noise=0.0)
    flipped = np.random.default_rng(4).random(800) < 0.1
    labels = np.where(flipped, np.roll(rows.labels, 1), rows.labels)
    gate = {"alpha": 0.8, "delta": 0.1, "families": ["l2d"], "scope": {"keep": 1.0}}
    task = write_task(tmp_path, gate=gate, acceptors=["logistic"])
    fitted = fit_policy(task, Rows.of(rows.texts, labels), Planted())
    assert fitted.certificate.threshold == -np.inf
    fitted.policy.save(tmp_path / "model")
    assert Policy.load(tmp_path / "model", Planted()).acceptor is None
    assert set(fitted.policy.score(rows.texts).score.tolist()) == {0.0}
    assert "does not clearly rank" in fitted.candidates[0].reason
