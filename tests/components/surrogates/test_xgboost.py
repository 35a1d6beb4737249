from pathlib import Path

import numpy as np
import pytest

from tests.components.surrogates.worlds import blobs, share_right
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.errors import ArtifactError

pytest.importorskip("xgboost")


def test_survives_a_class_that_is_missing_from_a_fold() -> None:
    """Of classes 0, 1, 2 without 1, the columns are those of 0 and 2."""
    inputs, labels = blobs()
    rows = np.flatnonzero(labels != "label 1")
    model = surrogates.build("xgboost", {"rounds": 5}).fit(inputs.take(rows), labels[rows])
    proba = model.predict_proba(inputs.take(rows))
    assert model.classes_.tolist() == ["label 0", "label 2"]
    assert share_right(np.asarray(proba), model.classes_, labels[rows]) > 0.95


def test_damaged_trees_are_an_artifact_error(tmp_path: Path) -> None:
    """A file that is no model is refused with its folder's name."""
    model = surrogates.build("xgboost", {"rounds": 1}).fit(*blobs(rows=40))
    save_component(model, tmp_path / "model")
    (tmp_path / "model" / "trees.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match="model"):
        load_component(type(model), tmp_path / "model")
