import numpy as np

from tests.components.surrogates.worlds import blobs
from tracer_serve.components.surrogates.knn import Knn
from tracer_serve.types import Inputs

AXES = np.eye(3, dtype=np.float32)


def test_the_nearest_label_wins_and_every_class_keeps_mass() -> None:
    """A vote counts by its cosine, and no class has probability 0."""
    model = Knn(k=3).fit(Inputs(["x", "y", "z"], AXES), np.array(["b", "a", "c"]))
    proba = model.predict_proba(Inputs(["?"], np.array([[0.2, 0.9, 0.1]], np.float32)))
    assert model.classes_[proba.argmax()] == "a"
    assert proba.min() >= 0.02 / 3 - 1e-6


def test_votes_are_weighed_as_documented() -> None:
    """Votes at cosines 1 and 0.8 with temperature 0.1 have weights 1 and exp(-2)."""
    vectors = np.array([[1, 0], [0.8, 0.6]], np.float32)
    model = Knn(k=2, temperature=0.1, smoothing=1e-9).fit(Inputs(["x", "y"], vectors), np.array(["a", "b"]))
    proba = model.predict_proba(Inputs(["?"], vectors[:1]))[0]
    np.testing.assert_allclose(proba[1] / proba[0], np.exp(-2), rtol=1e-4)


def test_fewer_traces_than_neighbours_is_no_error() -> None:
    """With two traces, the missing thirteen neighbours have no vote."""
    model = Knn(k=15, smoothing=0.01).fit(Inputs(["x", "y"], AXES[:2]), np.array(["a", "b"]))
    assert model.predict_proba(Inputs(["?"], AXES[:1]))[0, 0] > 0.98


def test_a_capped_index_still_knows_every_class() -> None:
    """Beyond `cap` a sample is searched; `classes_` is that of all traces."""
    inputs, labels = blobs(rows=300, classes=5)
    model = Knn(cap=20).fit(inputs, labels)
    assert len(model.index_.vectors) == 20
    assert model.predict_proba(inputs).shape == (300, 5)
