import numpy as np

from tests.components.surrogates.worlds import share_right
from tracer_serve.components.surrogates.mlp import Mlp
from tracer_serve.types import Inputs


def test_learns_what_no_line_divides() -> None:
    """The exclusive or of two signs, on which a linear model is right half of the time."""
    vectors = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    labels = np.where((vectors[:, 0] > 0) == (vectors[:, 1] > 0), "same", "different")
    inputs = Inputs([""] * 1000, vectors)
    model = Mlp(hidden=32, epochs=40).fit(inputs, labels)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) > 0.9


def test_the_size_of_the_vectors_does_not_matter() -> None:
    """A pair's long vectors and a text's unit vectors are learnt alike: what is fitted is scaled to one size."""
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    labels = np.where(vectors[:, 0] > 0, "a", "b")
    small, large = (Inputs([""] * 400, scale * vectors) for scale in (np.float32(0.125), np.float32(8)))
    proba = [Mlp(hidden=16).fit(inputs, labels).predict_proba(inputs) for inputs in (small, large)]
    np.testing.assert_allclose(proba[0], proba[1], atol=1e-3)


def test_every_row_its_own_label() -> None:
    """Nothing is held out, so labels seen once are learnt like others."""
    vectors = np.eye(30, dtype=np.float32)
    labels = np.array([f"{i:02d}" for i in range(30)])
    inputs = Inputs([""] * 30, vectors)
    model = Mlp(hidden=64).fit(inputs, labels)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) == 1
