"""Gradient-boosted trees on the embedding (xgboost)."""

import json
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import xgboost
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode
from tracer_serve.components.surrogates._boosted_trees import BoostedTrees
from tracer_serve.errors import ArtifactError
from tracer_serve.types import Inputs, Labels, Vectors

_STATE, _TREES = "xgboost.json", "trees.json"


@surrogates.register("xgboost")
class XGBoost:
    """Softmax boosting with histogram splits. Slow to fit with many classes: one tree a class and round.

    Parameters
    ----------
    rounds : boosting rounds
    max_depth : maximum depth of a tree
    learning_rate : weight of each round
    column_share : share of the embedding's dimensions available to a tree
    seed : of the dimensions drawn
    """

    cost = 25.0  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

    def __init__(
        self,
        *,
        rounds: Annotated[int, Field(ge=1, le=5000)] = 40,
        max_depth: Annotated[int, Field(ge=1, le=32)] = 4,
        learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.3,
        column_share: Annotated[float, Field(gt=0, le=1)] = 0.3,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.params = {
            "rounds": rounds,
            "max_depth": max_depth,
            "learning_rate": learning_rate,
            "column_share": column_share,
            "seed": seed,
        }
        self.classes_: Labels = np.empty(0, np.str_)
        self._booster: xgboost.Booster | None = None

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fit on n rows; with a single class there is nothing to boost."""
        self.classes_, y = encode(labels)  # xgboost takes neither strings nor gaps
        self._booster = None
        if len(self.classes_) > 1:
            params = {
                "objective": "multi:softprob",
                "num_class": len(self.classes_),
                "tree_method": "hist",
                "max_depth": self.params["max_depth"],
                "eta": self.params["learning_rate"],
                "colsample_bytree": self.params["column_share"],
                "seed": self.params["seed"],
            }
            rows = xgboost.QuantileDMatrix(np.asarray(inputs.embeddings, np.float32), y, max_bin=64)
            self._booster = xgboost.train({**params, "max_bin": 64}, rows, num_boost_round=int(self.params["rounds"]))
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        if self._booster is None or not len(inputs):
            return np.ones((len(inputs), len(self.classes_)), np.float32)
        proba: Vectors = self._booster.inplace_predict(np.asarray(inputs.embeddings, np.float32))
        return proba

    def save(self, folder: Path) -> None:
        """Write the trees as JSON, xgboost's own stable format."""
        state = {"params": self.params, "classes": self.classes_.tolist()}
        (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
        if self._booster is not None:
            self._booster.save_model(folder / _TREES)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote; xgboost sees the trees only after every index in them was checked."""
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            model = cls(**state["params"])
            model.classes_ = np.array(state["classes"], np.str_)
            if len(model.classes_) > 1:
                trees = BoostedTrees.model_validate_json((folder / _TREES).read_bytes())
                model._booster = xgboost.Booster(model_file=trees.content(len(model.classes_)))
        except (OSError, ValueError, KeyError, TypeError, xgboost.core.XGBoostError) as error:
            raise ArtifactError(f"{folder}: the state of an xgboost model cannot be read: {error}") from error
        return model
