"""One surrogate per field, and one joint answer."""

from pathlib import Path

import numpy as np
import pytest

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.surrogates import per_field
from tracer_serve.components.surrogates.per_field import PerField
from tracer_serve.config.base import Component
from tracer_serve.config.fields import canonical
from tracer_serve.types import Floats, Inputs, Labels


def world(rows: int = 400, seed: int = 0) -> tuple[Inputs, Labels]:
    """Texts whose first two numbers decide the intent, the third the urgency, and the others a tag each."""
    x = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    given = [
        canonical(
            {
                "intent": "ab"[int(row[0] > 0)],
                "urgent": bool(row[2] > 0),
                "tags": [tag for tag, value in zip("xyz", row[3:], strict=True) if value > 0],
            }
        )
        for row in x
    ]
    return Inputs([str(i) for i in range(rows)], x), np.array(given)


@pytest.mark.parametrize("of", ["logreg", "blend"])
def test_it_learns_every_field_and_survives_a_restart(tmp_path: Path, of: str) -> None:
    """What is read back says the same, rows sum to 1, and new texts get the right answer in all fields at once."""
    inputs, labels = world()
    fresh, truth = world(seed=1)
    fitted = PerField(of=Component(type=of)).fit(inputs, labels)
    proba = fitted.predict_proba(fresh)
    assert proba.shape == (400, len(np.unique(labels)))
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
    assert (fitted.classes_[proba.argmax(axis=1)] == truth).mean() > (0.8 if of == "logreg" else 0.6)
    save_component(fitted, tmp_path / "kept")
    assert np.allclose(load_component(PerField, tmp_path / "kept").predict_proba(fresh), proba)


def test_members_are_the_fields_and_then_the_surrogates_own() -> None:
    """Each field's member gives answers that share its value the same probability, and these sum to 1."""
    inputs, labels = world(200)
    fitted = PerField(of=Component(type="blend", members=["logreg", "knn"])).fit(inputs, labels)  # type: ignore[call-arg]
    members = fitted.predict_members(inputs)
    assert len(members) == 3 + 1 + 2
    intents = np.array(['"intent":"a"' in label for label in fitted.classes_])
    one, other = members[0][:, intents], members[0][:, ~intents]
    assert np.allclose(one, one[:, :1])
    assert np.allclose(one[:, 0] + other[:, 0], 1, atol=1e-4)


def test_rare_answers_are_left_to_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many answers only the frequent ones are told apart as a whole, and the others are still given."""
    monkeypatch.setattr(per_field, "_ANSWERS", 4)
    inputs, labels = world()
    fresh, truth = world(seed=1)
    fitted = PerField(of=Component(type="logreg")).fit(inputs, labels)
    assert fitted.whole_ is not None
    assert len(fitted.whole_.classes_) == 5
    proba = fitted.predict_proba(fresh)
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
    assert (fitted.classes_[proba.argmax(axis=1)] == truth).mean() > 0.8


def test_an_answer_that_never_occurred_is_not_made_up() -> None:
    """Where one field determines another, contradictions are no classes, and the sure field decides."""
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    labels = np.array([canonical({"intent": "ab"[int(v > 0)], "same": bool(v > 0)}) for v in x[:, 0]])
    fitted = PerField(of=Component(type="logreg")).fit(Inputs([""] * 300, x), labels)
    assert len(fitted.classes_) == 2
    sure: Floats = fitted.predict_proba(Inputs([""] * 300, x)).max(axis=1)
    assert sure.min() > 0.5


def test_constant_fields_and_empty_tags_are_no_obstacle() -> None:
    """A field with one value, tags that never occur, and plain labels of a task without fields are all fitted."""
    inputs, _ = world(60)
    values = [canonical({"a": "ab"[i % 2], "b": True, "tags": []}) for i in range(60)]
    fitted = PerField(of=Component(type="logreg")).fit(inputs, np.array(values))
    assert fitted.predict_proba(inputs).shape == (60, 2)
    plain = PerField(of=Component(type="logreg")).fit(inputs, np.array(["x", "y"] * 30))
    assert plain.classes_.tolist() == ["x", "y"]
