from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.components.surrogates.worlds import blobs, share_right
from tests.support.tasks import banking
from tracer_serve.components.surrogates.ngram_svc import NgramSvc
from tracer_serve.types import Inputs


def test_learns_from_the_texts_alone() -> None:
    """With zero vectors it still separates the labels by their words."""
    inputs, labels = blobs(rows=200)
    blind = Inputs(inputs.texts, np.zeros_like(inputs.embeddings))
    model = NgramSvc().fit(blind, labels)
    assert share_right(model.predict_proba(blind), model.classes_, labels) == 1


def test_fits_abreast_are_the_fit_alone() -> None:
    """Folds that are fitted in threads side by side get the model that they get alone."""
    texts, named = banking(400)
    inputs, labels = Inputs(texts, np.zeros((len(texts), 2), np.float32)), np.array(named)
    alone = NgramSvc().fit(inputs, labels)
    with ThreadPoolExecutor(2) as pool:
        for one in pool.map(lambda _: NgramSvc().fit(inputs, labels), range(4)):
            np.testing.assert_array_equal(one.coef_, alone.coef_)


def test_learns_pairs_by_side() -> None:
    """Pairs with the same words on swapped sides are separated."""
    pairs = [("good", "bad"), ("bad", "good")] * 20
    labels = np.array(["first", "second"] * 20)
    inputs = Inputs(pairs, np.zeros((40, 2), np.float32))
    model = NgramSvc().fit(inputs, labels)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) == 1


def test_a_class_that_the_sample_lacks_is_known_and_improbable() -> None:
    """Beyond `max_rows` a sample is fitted; a label that fell out keeps its column."""
    inputs, labels = blobs(rows=300)
    left_out = np.setdiff1d(np.arange(300), np.random.default_rng(1).choice(300, 50, replace=False))
    labels = np.where(np.arange(300) == left_out[0], "rare", labels)
    model = NgramSvc(max_rows=50, seed=1).fit(inputs, labels)
    proba = model.predict_proba(inputs)
    assert "rare" in model.classes_
    assert proba[:, model.classes_ == "rare"].max() < 0.1
    assert share_right(proba, model.classes_, labels) > 0.95


def test_a_fold_is_as_sharp_as_its_refit() -> None:
    """With `refit_rows`, C grows as the rows shrink: doubling every row and halving C changes nothing."""
    inputs, labels = blobs(rows=60)
    twice = np.repeat(np.arange(60), 2)
    half, whole, plain = (NgramSvc(max_iter=2000, min_rows=1) for _ in range(3))
    half.refit_rows = 120
    scaled = half.fit(inputs, labels).predict_proba(inputs)
    expected = whole.fit(inputs.take(twice), labels[twice]).predict_proba(inputs)
    # the idf counts the doubled rows too, which moves the third digit
    np.testing.assert_allclose(scaled, expected, atol=0.02)
    assert np.abs(plain.fit(inputs, labels).predict_proba(inputs) - expected).max() > np.abs(scaled - expected).max()
