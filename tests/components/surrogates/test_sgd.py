import numpy as np
import pytest

from tests.components.surrogates.worlds import blobs, share_right
from tracer_serve.components.surrogates.logreg import LogReg
from tracer_serve.components.surrogates.sgd import Sgd


@pytest.mark.parametrize("classes", [2, 8])
def test_comes_close_to_logreg(classes: int) -> None:
    """On new rows it is right about as often as the exact optimum."""
    inputs, labels = blobs(rows=2000, classes=classes, seed=1)
    new, truth = blobs(rows=2000, classes=classes, seed=2)
    right = [share_right(m.fit(inputs, labels).predict_proba(new), m.classes_, truth) for m in (Sgd(), LogReg(C=10))]
    assert right[0] > right[1] - 0.02


def test_one_pass_is_always_made() -> None:
    """Where the rows exceed `max_visits`, each of them is still seen once."""
    inputs, labels = blobs(rows=2000)
    model = Sgd(max_visits=10).fit(inputs, labels)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) > 0.9


def test_large_vectors_do_not_blow_up() -> None:
    """The step fits the size of the vectors: a hundredfold of it stays finite and as right."""
    inputs, labels = blobs(rows=500)
    large = type(inputs)(inputs.texts, inputs.embeddings * np.float32(100))
    model = Sgd().fit(large, labels)
    assert share_right(model.predict_proba(large), model.classes_, labels) > 0.95


def test_the_seed_orders_the_rows() -> None:
    """Another seed is another order, and so slightly other weights."""
    inputs, labels = blobs()
    first, second = (Sgd(seed=s).fit(inputs, labels).coef_ for s in (0, 1))
    assert not np.allclose(first, second)
