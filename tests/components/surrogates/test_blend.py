from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from tests.components.surrogates.worlds import blobs, share_right
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import softmax
from tracer_serve.components.surrogates.blend import Blend
from tracer_serve.components.surrogates.encoder import Encoder
from tracer_serve.components.surrogates.knn import Knn
from tracer_serve.config.base import Component
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.types import Inputs, Labels


def log_loss(proba: np.ndarray, classes: Labels, labels: Labels) -> float:
    """Mean negative log probability of the labels."""
    return float(-np.log(proba[np.arange(len(labels)), np.searchsorted(classes, labels)]).mean())


def blend(*members: Any, seed: int = 0) -> Blend:
    """Make a blend as a YAML block does."""
    found = surrogates.build("blend", {"members": list(members), "seed": seed})
    assert isinstance(found, Blend)
    return found


def test_a_member_that_is_too_sure_is_toned_down() -> None:
    """A hundredfold too sharp member gets a sharpness that mends its log loss on new rows."""
    inputs, labels = blobs(rows=600, spread=0.8)
    new, truth = blobs(rows=600, spread=0.8, seed=1)
    sharp = {"type": "knn", "k": 5, "temperature": 0.001, "smoothing": 1e-5}
    model = blend(sharp).fit(inputs, labels)
    alone = surrogates.build("knn", {k: v for k, v in sharp.items() if k != "type"}).fit(inputs, labels)
    assert model.sharpness_[0] < 0.7
    mended = log_loss(model.predict_proba(new), model.classes_, truth)
    assert mended < 0.8 * log_loss(np.asarray(alone.predict_proba(new)), model.classes_, truth)


def test_members_that_see_different_things_are_right_more_often_together() -> None:
    """Vectors and words that each mislead on other rows make a blend better than either."""
    inputs, labels = blobs(rows=1500, spread=0.8)
    rng = np.random.default_rng(0)
    texts = [t if rng.random() < 0.7 else "about nothing" for t in inputs.texts]
    seen = Inputs(texts, inputs.embeddings)
    train, test = np.arange(1000), np.arange(1000, 1500)
    model = blend("logreg", "ngram_svc").fit(seen.take(train), labels[train])
    each = [share_right(m, model.classes_, labels[test]) for m in model.predict_members(seen.take(test))]
    both = share_right(model.predict_proba(seen.take(test)), model.classes_, labels[test])
    assert both > max(each)


def test_combine_is_the_normalised_geometric_mean() -> None:
    """Of two members, the blend is the root of their product, made to sum to 1."""
    members = np.array([[[0.9, 0.1]], [[0.5, 0.5]]], np.float32)
    root = np.sqrt(np.array([[0.45, 0.05]]))
    np.testing.assert_allclose(blend("logreg", "knn").combine(members), root / root.sum(), atol=1e-6)


def test_no_member_has_a_veto() -> None:
    """A probability of 0 counts as very small, not as impossible."""
    members = np.array([[[1, 0]], [[0.5, 0.5]], [[0.5, 0.5]]], np.float32)
    assert blend("logreg", "knn", "ngram_svc").combine(members)[0, 1] > 0


def test_a_member_that_knows_nothing_is_silenced() -> None:
    """Beside a member that only guesses, the blend is as right and as sure as the other one alone."""
    inputs, labels = blobs(rows=1500, spread=0.6)
    order = np.random.default_rng(1).permutation(1500)
    shuffled = Inputs([inputs.texts[i] for i in order], inputs.embeddings)  # texts that belong to other rows
    seen, new = np.arange(1000), np.arange(1000, 1500)
    truth = np.unique(labels, return_inverse=True)[1][new]

    def loss(*members: str) -> float:
        proba = blend(*members).fit(shuffled.take(seen), labels[seen]).predict_proba(shuffled.take(new))
        return -float(np.log(proba[np.arange(500), truth]).mean())

    assert loss("logreg", "ngram_svc") < loss("logreg") + 0.01


def test_members_are_scaled_to_the_refit() -> None:
    """`refit_rows` reaches the members, and without it their own fit is the refit."""
    inputs, labels = blobs()
    model = blend("logreg", "knn")
    model.refit_rows = 400
    assert getattr(model.fit(inputs, labels).fitted_[0], "refit_rows", None) == 400
    assert getattr(blend("logreg").fit(inputs, labels).fitted_[0], "refit_rows", None) == len(labels)


def test_few_rows_keep_the_members_as_they_are() -> None:
    """With too few rows to hold out, no temperature is guessed."""
    model = blend("logreg", "knn").fit(*blobs(rows=30))
    np.testing.assert_array_equal(model.sharpness_, [1, 1])


@pytest.mark.parametrize(
    ("members", "error"),
    [
        (["logreg", "knnn"], "Did you mean 'knn'"),
        ([{"type": "knn", "K": 3}], "unknown parameter 'K'"),
        ([], "at least 1"),
    ],
)
def test_a_wrong_member_is_refused_before_any_fit(members: list[Any], error: str) -> None:
    """Making the blend makes its members: a misspelt one is an error of the spec."""
    with pytest.raises(PluginError, match=error):
        blend(*members)


class Dear(Knn):
    """Repeats its nearest trace with certainty; holds every fifth row out, and counts its trainings."""

    cost = 100.0
    trainings = 0

    def __init__(self) -> None:
        super().__init__(k=1, smoothing=1e-4)
        self.held_out_ = np.empty(0, np.int64)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        Dear.trainings += 1
        self.held_out_ = np.arange(0, len(labels), 5)
        kept = np.setdiff1d(np.arange(len(labels)), self.held_out_)
        return super().fit(inputs.take(kept), labels[kept])


def test_a_dear_member_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight comes from what it held out, where it shows that it only repeats; the others see all rows."""
    monkeypatch.setitem(surrogates._classes, "dear", Dear)
    monkeypatch.setattr(Dear, "trainings", 0)
    inputs, labels = blobs(rows=1000, spread=0.8)
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(1000) < 0.3, rng.permutation(labels), labels)
    model = blend("knn", "dear").fit(inputs, labels)
    learnt_from = [len(member.index_.rows) for member in model.fitted_ if isinstance(member, Knn)]
    assert (Dear.trainings, learnt_from) == (1, [1000, 800])
    assert model.sharpness_[1] < 0.5
    assert model.weights_[0] > 2 * model.weights_[1]


def test_nested_members_survive_the_disk(tmp_path: Path) -> None:
    """A blend in a blend, with parameters, comes back with all its arrays."""
    inputs, labels = blobs()
    model = blend("logreg", {"type": "blend", "members": [{"type": "knn", "k": 3}, "ngram_svc"]}).fit(inputs, labels)
    save_component(model, tmp_path / "blend")
    loaded = load_component(Blend, tmp_path / "blend")
    np.testing.assert_array_equal(loaded.predict_members(inputs), model.predict_members(inputs))
    assert loaded.members == model.members


def test_a_damaged_state_is_an_artifact_error(tmp_path: Path) -> None:
    """A state that is not JSON, or lacks a part, is refused with its folder's name."""
    save_component(blend("logreg").fit(*blobs(rows=40)), tmp_path / "blend")
    for damage in ("{", "{}"):
        (tmp_path / "blend" / "blend.json").write_text(damage, encoding="utf-8")
        with pytest.raises(ArtifactError, match="blend"):
            load_component(Blend, tmp_path / "blend")


def test_softmax_survives_large_logits() -> None:
    """Logits beyond the range of exp still give a distribution."""
    expected = np.array([[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), expected)


def test_is_as_heavy_as_its_heaviest_member() -> None:
    """A blend that holds an encoder has to be worth its time, one of light members has not."""
    assert Blend(members=(Component(type="knn"),)).cost == Blend.cost
    assert Blend(members=(Component(type="knn"), Component(type="encoder"))).cost == Encoder.cost
