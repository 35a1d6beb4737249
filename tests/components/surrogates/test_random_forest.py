import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from tests.components.surrogates.worlds import blobs
from tracer_serve.components.surrogates.random_forest import RandomForest


@pytest.mark.parametrize(("classes", "leaf", "depth"), [(2, 1, None), (5, 4, None), (5, 1, 2)])
def test_flat_arrays_say_what_the_trees_say(classes: int, leaf: int, depth: int | None) -> None:
    """Pure leaves, mixed leaves and shallow trees: the same probabilities as scikit-learn's own forest."""
    inputs, labels = blobs(classes=classes, spread=0.6)
    new, _ = blobs(rows=700, classes=classes, spread=0.6, seed=1)
    model = RandomForest(trees=10, min_samples_leaf=leaf, max_depth=depth).fit(inputs, labels)
    forest = RandomForestClassifier(10, min_samples_leaf=leaf, max_depth=depth, random_state=0)
    expected = forest.fit(inputs.embeddings, labels).predict_proba(new.embeddings)
    np.testing.assert_allclose(model.predict_proba(new), expected, atol=1e-6)
