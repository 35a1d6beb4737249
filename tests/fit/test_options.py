"""What the options of the gate promise is what the policy serves, also after its disk."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fit.test_pipeline import planted
from tests.support.tasks import Planted, write_task
from tracer_serve.errors import SpecError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.binomial import lower_bounds
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.settings import Ordinal, spent_delta
from tracer_serve.policy.policy import Policy

GATE = {"alpha": 0.85, "delta": 0.05, "scope": {"keep": 1.0}}


def one_bad_label(n: int = 2400) -> Rows:
    """Four labels, of which the teacher gives the last one's rows another label every second time."""
    rows = planted(n, noise=0.0)
    rng = np.random.default_rng(1)
    bad = (rows.labels == "label3") & (rng.random(n) < 0.5)
    return Rows.of(rows.texts, np.where(bad, rng.choice(["label0", "label1", "label2"], n), rows.labels))


def fit(folder: Path, *, mode: str = "cross_fit", index: int = 1, rows: Rows | None = None, **gate: object) -> Fitted:
    """Fit a task and serve what was written to disk."""
    folder.mkdir(exist_ok=True)
    task = write_task(folder, gate={**GATE, "mode": mode, **gate})
    fitted = fit_policy(task, rows or one_bad_label(), Planted(), ordinal=Ordinal(index))
    fitted.policy.save(folder / "model")
    served = Policy.load(folder / "model", Planted())
    assert repr(served.certificate) == repr(fitted.certificate)  # a delta that is NaN equals nothing
    return Fitted(served, fitted.calibration, fitted.vectors, fitted.candidates, fitted.trained)


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
@pytest.mark.parametrize("option", [{"class_floor": 0.7}, {"per_class": True}], ids=["class_floor", "per_class"])
def test_a_label_without_evidence_is_deferred(tmp_path: Path, mode: str, option: dict[str, Any]) -> None:
    """Under a floor, and with a certificate per label, the bad label is deferred, which the reason says."""
    new = one_bad_label(400)
    marginal = fit(tmp_path / "plain", mode=mode, alpha=0.7).policy
    assert any(v.handled for v in marginal.decide(new.texts) if v.label == "label3")
    fitted = fit(tmp_path / "option", mode=mode, **option)
    verdicts = fitted.policy.decide(new.texts)
    assert {v.reason for v in verdicts if v.label == "label3"} == {"class_not_certified"}
    assert np.mean([v.handled for v in verdicts if v.label != "label3"]) > 0.8
    certificate = fitted.certificate
    assert certificate.class_floor == option.get("class_floor", 0.0)
    assert certificate.per_class is ("per_class" in option)
    bad = next(row for row in certificate.classes if row.label == "label3")
    assert not bad.certified
    assert bad.n == 0 or certificate.per_class


def test_per_class_thresholds_are_served(tmp_path: Path) -> None:
    """Each label is handled from its own threshold on, on the rows of the certificate and on new ones."""
    rows = planted(2400, noise=0.3)
    fitted = fit(tmp_path, rows=rows, per_class=True)
    least = {row.label: row.threshold for row in fitted.certificate.classes if row.certified}
    assert least
    for verdict in fitted.policy.decide(planted(400, seed=5).texts):
        assert verdict.handled is (verdict.score >= least.get(verdict.label, math.inf))


def test_a_series_spends_less_on_every_later_version(tmp_path: Path) -> None:
    """`spend: series` certifies the j-th version at 6 delta / (pi^2 j^2), and the certificate says which it is."""
    rows = planted(400, noise=0.0)
    found = [fit(tmp_path / str(j), rows=rows, spend="series", index=j).certificate for j in (1, 3)]
    assert [c.delta for c in found] == [spent_delta(0.05, "series", j) for j in (1, 3)]
    assert [(c.spend, c.index) for c in found] == [("series", 1), ("series", 3)]
    assert fit(tmp_path / "own", rows=rows, index=3).certificate.delta == 0.05


def test_surrogates_that_compete_share_delta(tmp_path: Path) -> None:
    """Each of two is tested at half of delta, and the certificate, which is wrong at most at delta, says so."""
    rows = one_bad_label()
    alone = write_task(tmp_path, gate=GATE | {"alpha": 0.7})
    (tmp_path / "two").mkdir()
    two = write_task(tmp_path / "two", gate=GATE | {"alpha": 0.7}, surrogates=["logreg", "knn"])
    one, both = (fit_policy(task, rows, Planted()).certificate for task in (alone, two))
    assert (one.rivals, one.delta, both.rivals, both.delta) == (1, 0.05, 2, 0.05)
    assert bound_at(one, 0.05)
    assert bound_at(both, 0.025)
    assert not bound_at(both, 0.05)


def bound_at(found: Certificate, delta: float) -> bool:
    """Say whether the bound that a certificate states is the exact one at delta."""
    return found.lower_bound == pytest.approx(float(lower_bounds(found.agreements, found.n, delta)), abs=1e-9)


def test_the_overall_promise_is_named(tmp_path: Path) -> None:
    """`guarantee: overall` handles more than the promise about what is handled, and never poses as that one."""
    rows = planted(1000)
    overall = fit(tmp_path / "overall", rows=rows, guarantee="overall").certificate
    usual = fit(tmp_path / "usual", rows=rows).certificate
    assert (overall.guarantee, usual.guarantee) == ("overall", "probability")
    assert math.isnan(overall.delta)
    assert overall.coverage >= usual.coverage


@pytest.mark.parametrize(
    "gate",
    [
        {"per_class": True, "guarantee": "overall"},
        {"per_class": True, "families": ["cascade"]},
        {"guarantee": "overall", "families": ["cascade"]},
    ],
)
def test_options_that_exclude_each_other_are_refused(tmp_path: Path, gate: dict[str, object]) -> None:
    """A combination that has no proof is an error of the spec that names the part at fault."""
    with pytest.raises(SpecError, match="gate"):
        write_task(tmp_path, gate=gate)


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_a_segment_without_evidence_is_deferred(tmp_path: Path, mode: str) -> None:
    """Texts of a kind that the teacher labels at random are deferred, also after the policy's disk; the others not."""
    rows, rng = planted(3000, noise=0.0), np.random.default_rng(2)
    texts = [f"{text}{' odd' * (i % 3 == 0)}" for i, text in enumerate(rows.texts)]
    odd = np.arange(3000) % 3 == 0
    labels = np.where(odd, rng.permutation(rows.labels), rows.labels)
    segments = {"odd": r"\bodd\b"}
    fitted = fit(tmp_path, mode=mode, rows=Rows.of(texts, labels), segments=segments, min_coverage=0.0)
    verdicts = fitted.policy.decide(texts)
    assert {v.reason for v, strange in zip(verdicts, odd, strict=True) if strange} <= {
        "segment_not_certified",
        "out_of_scope",
    }
    assert np.mean([v.handled for v, strange in zip(verdicts, odd, strict=True) if not strange]) > 0.8
    assert [row.name for row in fitted.certificate.segments] == ["odd", "other"]


@pytest.mark.parametrize("segments", [{"other": "x"}, {"odd": "("}])
def test_patterns_that_mean_nothing_are_refused(tmp_path: Path, segments: dict[str, str]) -> None:
    """The name of the rest, and what is no regular expression, are refused."""
    with pytest.raises(SpecError, match="segments"):
        write_task(tmp_path, gate={"segments": segments})
