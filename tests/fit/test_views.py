"""A first stage with an embedder of its own: what it handles costs the main embedder nothing."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tasks import Planted, write_task
from tracer_serve.components.embedders.ngrams import NGrams
from tracer_serve.components.factory import make_embedders
from tracer_serve.components.registry import embedders
from tracer_serve.config.load import Task
from tracer_serve.errors import ArtifactError, SpecError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.fold_data import Folds
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.per_class import class_thresholds
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.score_scale import Scale
from tracer_serve.policy.stage import gather
from tracer_serve.policy.view import View
from tracer_serve.types import Inputs, Text, Vectors

ASKED: list[int] = []


class Cheap(Planted):
    """What the vector shows is the class meant, on what is not hard."""


class Dear:
    """Reads the fourth word, which tells the label of hard rows too; notes how much it is asked, and takes its time."""

    trainable = False
    fingerprint = "dear"

    def fit(self, texts: Sequence[Text]) -> "Dear":
        raise NotImplementedError(texts)

    def embed(self, texts: Sequence[Text]) -> Vectors:
        ASKED.append(len(texts))
        out: Vectors = np.full((len(texts), 4), 0.1, np.float32)
        for i, text in enumerate(texts):
            np.linalg.eigvals(np.ones((24, 24)) * i)  # what makes it dear
            out[i, int(str(text).split()[3])] = 1.0
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    embedders.register("cheap")(Cheap)
    embedders.register("dear")(Dear)
    yield
    for name in ("cheap", "dear"):
        embedders._classes.pop(name)


def rows(n: int, seed: int = 0) -> Rows:
    """Rows a third of which are hard for the cheap embedder; the dear one is told wrongly on one in fifty."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n)
    hardness = np.where(rng.random(n) < 0.33, 0.5, 0.2 * rng.random(n))
    told = np.where(rng.random(n) < 0.02, (label + 1) % 4, label)
    texts: list[Text] = [
        f"{(y + (h == 0.5) * rng.integers(2)) % 4} {h:.6f} {i} {t}"
        for i, (y, h, t) in enumerate(zip(label, hardness, told, strict=True))
    ]
    return Rows.of(texts, [f"label{y}" for y in label])


def task_in(folder: Path, *, mode: str = "cross_fit", keep: float = 0.98) -> Task:
    gate: dict[str, Any] = {"alpha": 0.9, "delta": 0.05, "mode": mode, "families": ["l2d", "cascade"]}
    return write_task(
        folder,
        gate=gate | {"scope": {"keep": keep}},
        embedder="dear",
        surrogates=[{"type": "logreg", "embedder": "cheap"}, "logreg"],
        acceptors=["logistic"],
    )


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Fitted once for all tests that only look at it."""
    for name, kind in (("cheap", Cheap), ("dear", Dear)):
        embedders.register(name)(kind)
    return fit_policy(task_in(tmp_path_factory.mktemp("cascade")), rows(1500), Dear())


@pytest.mark.parametrize("mode", ["cross_fit", "strict"])
def test_both_views_are_certified_as_one_policy(tmp_path: Path, mode: str) -> None:
    """Both stages answer, the promise holds on new rows, and the certificate says what each costs with its embedder."""
    known = rows(1500)
    fitted = fit_policy(task_in(tmp_path, mode=mode, keep=1.0), known, Dear())
    found, new = fitted.certificate, rows(2000, seed=1)
    assert found.certified
    assert [row.surrogate for row in found.stages] == ["logreg on cheap", "logreg"]
    assert found.stages[0].cpu_ms + found.stages[0].embed_ms < found.stages[1].embed_ms / 2
    assert len(fitted.policy.views) == 2
    seen = fitted.policy.score(new.texts)
    assert all((seen.handled & (seen.stage == number)).mean() > 0.1 for number in (0, 1))
    assert (fitted.policy.classes[seen.top] == new.labels)[seen.handled].mean() >= 0.9
    np.testing.assert_allclose(fitted.vectors, Dear().embed([known.texts[i] for i in fitted.calibration.row]))


def test_what_the_first_stage_handles_is_not_embedded_again(cascade: Fitted) -> None:
    """The main embedder sees the rows that the first stage defers, once, and is not called where there are none."""
    new = rows(500, seed=2)
    ASKED.clear()
    seen = cascade.policy.score(new.texts)
    first = seen.handled & (seen.stage == 0)
    assert [len(first) - first.sum()] == ASKED
    assert ASKED[0] < 350
    ASKED.clear()
    alone = cascade.policy.score([text for text, handled in zip(new.texts, first, strict=True) if handled])
    assert alone.handled.all()
    assert not ASKED


def test_known_vectors_change_nothing(cascade: Fitted) -> None:
    """Who brings a view's vectors of all rows gets the same decisions, and that embedder is spared."""
    new, policy = rows(300, seed=3).texts, cascade.policy
    seen = policy.score(new)
    for view in policy.views:
        ASKED.clear()
        again = policy.score(new, {view: view.embed(new)})
        np.testing.assert_array_equal(again.handled, seen.handled)
        np.testing.assert_allclose(again.score, seen.score, atol=1e-6)
        expected = 300 if view is policy.view else int((seen.stage == 1).sum())
        assert [expected] == ASKED


def served_by_hand(policy: Policy, text: Text) -> tuple[str, bool, int]:
    """The rule from the fitted estimators themselves: label, handled, and the stage that was asked last."""
    label, asked, handled = "", -1, False
    for stage in policy.stages:
        asked += 1
        inputs = Inputs([text], stage.view.embedder.embed([text]))
        seen = gather(stage.surrogate, inputs, stage.view.index.query(inputs.embeddings))
        top = int(seen.proba[0].argmax())
        assert stage.acceptor is not None
        score = float(stage.scale(stage.acceptor.score(stage.acceptor.features(seen)))[0])
        mean = float(seen.neighbours.similarity[0][np.isfinite(seen.neighbours.similarity[0])].mean())
        scope = float(np.log(seen.proba[0].max()) + 5 * mean - 0.75 * policy.inputs.of([text])[0])
        threshold = float(class_thresholds(policy.certificate, policy.classes)[top])
        label = str(policy.classes[top])
        handled = scope >= stage.scope_threshold and bool(stage.open[top]) and score >= threshold
        handled = handled and len(str(text)) <= policy.inputs.longest
        if handled:
            break
    return label, handled, asked


def test_a_loaded_cascade_decides_as_its_estimators(cascade: Fitted, tmp_path: Path) -> None:
    """Row by row, whatever batch a row comes in, label, stage and decision are those of the fitted parts."""
    cascade.policy.save(tmp_path / "model")
    served = Policy.load(tmp_path / "model", Dear(), Cheap())
    assert [view.embedder.fingerprint for view in served.views] == ["planted", "dear"]
    new, start, rng = rows(800, seed=4).texts, 0, np.random.default_rng(0)
    while start < len(new):
        size = int(rng.choice([1, 5, 40]))
        for text, verdict in zip(new[start : start + size], served.decide(new[start : start + size]), strict=True):
            expected = served_by_hand(cascade.policy, text)
            assert (verdict.label, verdict.handled, verdict.stage) == expected
        start += size


def test_each_stage_guards_its_own_scope(cascade: Fitted) -> None:
    """What is out of the first stage's scope may still be answered by the second, and what is out of both by none."""
    new, (first, second) = rows(400, seed=5).texts, cascade.policy.stages
    strict = replace(first, scope_threshold=np.inf)
    seen = replace(cascade.policy, stages=(strict, second)).score(new)
    assert (seen.stage == 1).all()
    alone = replace(cascade.policy, stages=(second,)).score(new)
    np.testing.assert_array_equal(seen.handled, alone.handled)
    np.testing.assert_array_equal(seen.scope, alone.scope)
    assert seen.handled.mean() > 0.5
    neither = replace(cascade.policy, stages=(strict, replace(second, scope_threshold=np.inf))).score(new)
    assert not neither.handled.any()
    assert {*neither.reason.tolist()} == {"out_of_scope"}
    only_first = replace(cascade.policy, stages=(first, replace(second, scope_threshold=np.inf))).score(new)
    assert only_first.handled.any()
    assert {*only_first.stage[only_first.handled].tolist()} == {0}


def test_a_cascade_answers_no_more_than_one_guard_would_keep(tmp_path: Path) -> None:
    """What is foreign to one stage and familiar to the other counts once, not for each guard."""
    policy = fit_policy(task_in(tmp_path, keep=0.7), rows(1500), Dear()).policy
    assert len(policy.stages) == 2
    assert 0.6 < policy.certificate.coverage < 0.71


BREAKS: dict[str, Callable[[Path], object]] = {
    "no view": lambda folder: (folder / "view_1" / "view.json").unlink(),
    "broken view": lambda folder: (folder / "view_0" / "view.json").write_text("{"),
    "half a view": lambda folder: (folder / "view_0" / "view.json").write_text("{}"),
    "no index": lambda folder: (folder / "view_1" / "index" / "state.npz").unlink(),
    "no embedder": lambda folder: (folder / "view_0" / "embedder" / "state.npz").unlink(),
    "too few views": lambda folder: (folder / "policy.json").write_text(
        json.dumps(json.loads((folder / "policy.json").read_text()) | {"views": 1})
    ),
    "broken stage": lambda folder: (folder / "stage_1" / "stage.json").write_text("[]"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_view_does_not_load(cascade: Fitted, tmp_path: Path, broken: str) -> None:
    """Whatever file of a view is missing or unreadable, the policy is refused with the file's name."""
    first, second = cascade.policy.stages
    grams = View(NGrams(dim=4).fit(["one two", "two three"]), first.view.index)
    policy = replace(cascade.policy, stages=(replace(first, view=grams), second))
    policy.save(tmp_path / "model")
    assert Policy.load(tmp_path / "model", Dear(), NGrams()).views[0].embedder.fingerprint == grams.embedder.fingerprint
    BREAKS[broken](tmp_path / "model")
    with pytest.raises(ArtifactError, match="model"):
        Policy.load(tmp_path / "model", Dear(), NGrams())


def test_each_view_must_be_the_specs(cascade: Fitted, tmp_path: Path) -> None:
    """A version is void where the spec no longer names one of its embedders; in which order it names them is free."""
    cascade.policy.save(tmp_path / "model")
    assert len(Policy.load(tmp_path / "model", Cheap(), Dear()).views) == 2
    with pytest.raises(ArtifactError, match="certified with the embedder planted"):
        Policy.load(tmp_path / "model", Dear())
    with pytest.raises(ArtifactError, match="certified with the embedder dear"):
        Policy.load(tmp_path / "model", Cheap(), NGrams())


def test_a_scale_that_keeps_nothing_survives_the_disk(cascade: Fitted, tmp_path: Path) -> None:
    """An infinite bound is the same one after a restart: a stage that answers nothing must not begin to."""
    first, second = cascade.policy.stages
    barred = replace(first, scale=Scale(first.scale.knots, first.scale.values, np.inf))
    replace(cascade.policy, stages=(barred, second)).save(tmp_path / "model")
    seen = Policy.load(tmp_path / "model", Dear(), Cheap()).score(rows(50, seed=6).texts)
    assert (seen.stage == 1).all()


def test_views_are_named_once(tmp_path: Path) -> None:
    """Surrogates that name the same embedder share it, one that names the task's shares that; errors name the place."""
    own = {"type": "ngrams", "dim": 8}
    listed = [{"type": "logreg", "embedder": own}, "knn", {"type": "knn", "embedder": own}]
    task = write_task(tmp_path, embedder="ngrams", surrogates=[*listed, {"type": "sgd", "embedder": "ngrams"}])
    assert [task.spec.view_of(s) for s in range(4)] == [1, 0, 1, 0]
    assert [getattr(one, "dim", None) for one in make_embedders(task)] == [256, 8]
    assert [s.name for s in task.spec.surrogates][:2] == ["logreg on ngrams", "knn"]
    wrong = write_task(tmp_path, surrogates=["knn", {"type": "knn", "embedder": {"type": "ngrams", "dims": 8}}])
    with pytest.raises(SpecError, match=r"surrogates\[1\]\.embedder: .*'dims'"):
        make_embedders(wrong)


def test_folds_are_the_same_through_any_embedder() -> None:
    """Who is held out together depends on texts and seed alone; a trainable embedder is fitted without them."""
    known = Rows.of([f"word{i} and word{i % 17} more" for i in range(60)], [f"l{i % 3}" for i in range(60)])

    class Seeing(NGrams):
        fitted_on: list[set[Text]] = []  # noqa: RUF012  # shared by the copies of all folds

        def fit(self, texts: Sequence[Text]) -> "Seeing":
            self.fitted_on.append({*texts})
            super().fit(texts)
            return self

    folds = Folds(known, Dear(), 3, 0)
    other = folds.through(Seeing(dim=4))
    np.testing.assert_array_equal(folds.fold, other.fold)
    np.testing.assert_array_equal(folds.group, other.group)
    for fold in range(3):
        inputs, near = other.held_out(fold)
        assert len(inputs) == len(near.row) == (folds.fold == fold).sum()
        assert not Seeing.fitted_on[fold] & {*inputs.texts}
