"""Protected labels from traces to served answers: veto, certificate, and the promise against known truth."""

from pathlib import Path

import numpy as np
import pytest

from tests.gate.worlds import most_allowed
from tests.support.tasks import Planted, write_task
from tracer_serve.errors import SpecError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.protection import VetoChooser, VetoRows
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Floats

GATE = {"alpha": 0.9, "delta": 0.1, "min_coverage": 0.0, "scope": {"keep": 1.0}}
REQUIRED, DRAWS = 0.8, 100


def chance_of_hate(texts: list[str]) -> Floats:
    """P(the teacher says hate): 60 % of the hardest texts of class 0, none of the easy ones."""
    code, hardness = (np.array(column, float) for column in zip(*(text.split()[:2] for text in texts), strict=True))
    return np.where((code == 0) & (hardness > 0.2), 0.9 * (hardness - 0.2) / 0.1, 0.0)


def traffic(rng: np.random.Generator, n: int) -> list[str]:
    """Texts of four classes, a class and a hardness each."""
    return [f"{c} {h:.4f} {i}" for i, (c, h) in enumerate(zip(rng.integers(0, 4, n), 0.3 * rng.random(n), strict=True))]


def labelled(rng: np.random.Generator, texts: list[str]) -> Rows:
    """The teacher's labels: hate for some, else the class."""
    hate = rng.random(len(texts)) < chance_of_hate(texts)
    return Rows.of(texts, ["hate" if h else f"label{t.split()[0]}" for h, t in zip(hate, texts, strict=True)])


def true_recall(policy: Policy, texts: list[str]) -> float:
    """Return the share of the hate in fresh texts that is deferred or answered so."""
    seen, hate = policy.score(texts), chance_of_hate(texts)
    lost = seen.handled & (policy.classes[seen.top] != "hate")
    return 1.0 - float(hate[lost].sum() / hate.sum())


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_a_protected_label_is_kept_and_unprotected_it_is_lost(tmp_path: Path, mode: str) -> None:
    """Protected, the label keeps its recall on new texts after the policy's disk; the veto is the reason it gives."""
    rng = np.random.default_rng(0)
    rows, fresh = labelled(rng, traffic(rng, 3000)), traffic(rng, 2000)
    recall = {}
    for name, protect in (("free", {}), ("kept", {"hate": REQUIRED})):
        (folder := tmp_path / name).mkdir()
        task = write_task(folder, gate=GATE | {"mode": mode, "protect": protect}, acceptors=["logistic"])
        fitted = fit_policy(task, rows, Planted())
        assert fitted.certificate.certified
        fitted.policy.save(folder / "model")
        served = Policy.load(folder / "model", Planted())
        recall[name] = true_recall(served, fresh)
    assert recall["free"] < REQUIRED <= recall["kept"]
    (promised,) = served.certificate.protected
    assert (promised.label, promised.required) == ("hate", REQUIRED)
    table = {row.label: row for row in served.certificate.recalls}
    assert table["hate"].recall >= REQUIRED
    assert "protected_label" in {verdict.reason for verdict in served.decide(fresh)}


def test_the_veto_needs_no_more_than_it_takes() -> None:
    """Limits keep the recall that is required, and veto nothing where the label is kept anyway."""
    rng = np.random.default_rng(1)
    risk = rng.random(4000) ** 4
    truth, top = (rng.random(4000) >= risk).astype(int), np.ones(4000, int)
    rows = VetoRows(risk[None].astype(np.float32), np.array([0]), truth, top, rng.random(4000))
    chooser = VetoChooser({"hate": 0.8}, alpha=0.7, delta=0.05)
    limits = chooser.choose(rows)
    vetoed = rows.vetoed(limits)
    kept = vetoed[truth == 0].mean()
    assert 0.8 < kept < 0.9
    assert vetoed.mean() < 0.5
    answered = VetoRows(rows.risk, rows.protected, truth, truth, rows.score)
    assert np.isinf(chooser.choose(answered)).all()


def test_a_label_outside_the_label_set_cannot_be_protected(tmp_path: Path) -> None:
    """A misspelt label is refused with those that exist."""
    with pytest.raises(SpecError, match="protect names 'hat', which is not among labels: hate, other"):
        write_task(tmp_path, labels=["hate", "other"], gate={"protect": {"hat": 0.9}})


@pytest.mark.parametrize("other", [{"per_class": True}, {"guarantee": "overall"}])
def test_protect_and_promises_it_cannot_stand_beside_are_refused(tmp_path: Path, other: dict[str, object]) -> None:
    """A threshold per label, and an average over versions, hold no recall."""
    with pytest.raises(SpecError, match="protect needs"):
        write_task(tmp_path, gate={"protect": {"hate": 0.9}, **other})


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_the_pipeline_keeps_the_recall_it_promises(tmp_path: Path, mode: str) -> None:
    """Whole fits: a certified policy loses the label in at most delta of the worlds; unprotected it is lost in most."""
    protected = GATE | {"mode": mode, "protect": {"hate": REQUIRED}}
    wrong = certified = lost = 0
    for name, gate in (("kept", protected), ("free", GATE | {"mode": mode})):
        (folder := tmp_path / name).mkdir()
        task = write_task(folder, gate=gate, acceptors=["logistic"])
        for seed in range(DRAWS):
            rng = np.random.default_rng(seed)
            policy = fit_policy(task, labelled(rng, traffic(rng, 1500)), Planted()).policy
            low = policy.certificate.certified and true_recall(policy, traffic(rng, 3000)) < REQUIRED
            wrong, lost = wrong + (low and name == "kept"), lost + (low and name == "free")
            certified += policy.certificate.certified and name == "kept"
    assert wrong <= most_allowed(0.1, DRAWS)
    assert certified > 0.5 * DRAWS
    assert lost > most_allowed(0.1, DRAWS)
