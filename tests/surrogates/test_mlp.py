import numpy as np

from tests.surrogates.worlds import share_right
from tracer_serve.records import Inputs
from tracer_serve.surrogates.mlp import Mlp


def test_learns_what_no_line_divides() -> None:
    """The exclusive or of two signs, on which a linear model is right half of the time."""
    vectors = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    labels = np.where((vectors[:, 0] > 0) == (vectors[:, 1] > 0), "same", "different")
    inputs = Inputs([""] * 1000, vectors)
    model = Mlp(hidden=32, max_epochs=40, learning_rate=0.01).fit(inputs, labels)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) > 0.9


def test_labels_seen_once_do_not_stop_the_early_stopping() -> None:
    """Every row its own label: what is held out has labels that the rest has not."""
    vectors = np.eye(30, dtype=np.float32)
    labels = np.array([f"{i:02d}" for i in range(30)])
    proba = (
        Mlp(hidden=4, max_epochs=2).fit(Inputs([""] * 30, vectors), labels).predict_proba(Inputs([""] * 30, vectors))
    )
    assert proba.shape == (30, 30)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
