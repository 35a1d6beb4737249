import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.components.surrogates.worlds import blobs
from tracer_serve.components.surrogates.logreg import LogReg


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_is_the_multinomial_model_of_scikit_learn(classes: int) -> None:
    """The arrays that are kept give the probabilities of the textbook model, of two classes as of many."""
    inputs, labels = blobs(classes=classes)
    # for two classes scikit-learn penalises the difference of their weights, which is twice as much
    expected = LogisticRegression(C=20 if classes == 2 else 10, tol=1e-8, max_iter=5000).fit(
        inputs.embeddings.astype(float), labels
    )
    found = LogReg(tol=1e-6, max_iter=2000).fit(inputs, labels)
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    np.testing.assert_allclose(
        found.predict_proba(inputs), expected.predict_proba(inputs.embeddings.astype(float)), atol=2e-3
    )


def test_a_fold_is_as_sharp_as_its_refit() -> None:
    """With `refit_rows`, C grows as the rows shrink: doubling every row and halving C changes nothing."""
    inputs, labels = blobs(rows=100)
    half, whole = LogReg(tol=1e-6, max_iter=2000), LogReg(tol=1e-6, max_iter=2000)
    half.refit_rows = 200
    twice = np.repeat(np.arange(100), 2)
    np.testing.assert_allclose(
        half.fit(inputs, labels).predict_proba(inputs),
        whole.fit(inputs.take(twice), labels[twice]).predict_proba(inputs),
        atol=2e-3,
    )


def test_more_regularisation_is_less_sharp() -> None:
    """C means what it means in scikit-learn: the smaller, the more uncertain."""
    inputs, labels = blobs()
    sharp, dull = (LogReg(C=c).fit(inputs, labels).predict_proba(inputs).max(axis=1).mean() for c in (100, 0.1))
    assert dull < sharp - 0.1
