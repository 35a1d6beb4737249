"""Random forest on the embedding."""

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode
from tracer_serve.types import Inputs, Ints, Labels, Vectors

_CHUNK = 512  # rows walked at once


@surrogates.register("random_forest")
class RandomForest:
    """Mean of the leaf frequencies of many trees, kept as flat arrays: all trees are walked at once.

    Node i of the flat forest sends a row left where ``x[feature[i]] <= threshold[i]``. A leaf points to itself, and
    its class frequencies are ``share[first[i]:first[i + 1]]`` of the classes ``label[first[i]:first[i + 1]]``:
    nearly all leaves are pure, so a dense table would be mostly zeros.

    Parameters
    ----------
    trees : number of trees
    max_depth : maximum depth of a tree; None: until the leaves are pure
    min_samples_leaf : minimum number of rows in a leaf
    seed : of the samples and the features tried
    """

    cost = 15.0  # CPU of a fit in units of logreg's: cheap candidates are compared first
    stable = True

    def __init__(
        self,
        *,
        trees: Annotated[int, Field(ge=1, le=2000)] = 60,
        max_depth: Annotated[int, Field(ge=1, le=64)] | None = None,
        min_samples_leaf: Annotated[int, Field(ge=1)] = 1,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.trees, self.max_depth, self.min_samples_leaf, self.seed = trees, max_depth, min_samples_leaf, seed
        self.classes_: Labels = np.empty(0, np.str_)
        self.roots_: Ints = np.empty(0, np.int32)
        self.children_: Ints = np.empty((0, 2), np.int32)
        self.feature_: Ints = np.empty(0, np.int32)
        self.threshold_: NDArray[np.float64] = np.empty(0)
        self.first_: Ints = np.empty(0, np.int64)
        self.label_: Ints = np.empty(0, np.int32)
        self.share_: Vectors = np.empty(0, np.float32)
        self.depth_ = 0

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Grow the trees on n rows and flatten them."""
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415  # slow to import, and serving does not need it

        self.classes_, y = encode(labels)
        forest = RandomForestClassifier(
            self.trees, max_depth=self.max_depth, min_samples_leaf=self.min_samples_leaf, random_state=self.seed
        ).fit(np.asarray(inputs.embeddings, np.float32), y)
        trees = [estimator.tree_ for estimator in forest.estimators_]
        sizes = [tree.node_count for tree in trees]
        self.roots_ = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        self.depth_ = max(tree.max_depth for tree in trees)
        self.feature_ = np.concatenate([tree.feature for tree in trees]).clip(min=0).astype(np.int32)
        self.threshold_ = np.concatenate([tree.threshold for tree in trees])
        sides = [np.stack([tree.children_left, tree.children_right], axis=1) for tree in trees]
        children = np.concatenate([side + (side >= 0) * root for side, root in zip(sides, self.roots_, strict=True)])
        leaf = children[:, 0] < 0
        self.children_ = np.where(leaf[:, None], np.arange(len(leaf))[:, None], children).astype(np.int32)
        values = [np.where(side[:, :1] < 0, tree.value[:, 0], 0) for side, tree in zip(sides, trees, strict=True)]
        self._keep_leaves(values)
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        x = np.asarray(inputs.embeddings, np.float32)
        parts = [self._walk(x[i : i + _CHUNK]) for i in range(0, max(1, len(x)), _CHUNK)]
        return np.concatenate(parts)

    def _keep_leaves(self, values: list[NDArray[np.float64]]) -> None:
        """Keep the class frequencies (nodes, k) of each tree's leaves, without the zeros."""
        entries = [np.nonzero(value) for value in values]
        self.label_ = np.concatenate([column for _, column in entries]).astype(np.int32)
        shares = [value[entry] for value, entry in zip(values, entries, strict=True)]
        self.share_ = np.concatenate(shares).astype(np.float32)
        counts = [np.bincount(row, minlength=len(value)) for value, (row, _) in zip(values, entries, strict=True)]
        self.first_ = np.concatenate([[0], np.cumsum(np.concatenate(counts))])

    def _walk(self, x: Vectors) -> Vectors:
        rows = np.arange(len(x))[:, None]
        node = np.broadcast_to(self.roots_, (len(x), len(self.roots_)))
        for _ in range(self.depth_):
            right = x[rows, self.feature_[node]] > self.threshold_[node]
            node = self.children_[node, right.astype(np.int8)]
        first = self.first_[node].ravel()
        many = self.first_[node.ravel() + 1] - first
        row = np.repeat(np.arange(len(x)), many.reshape(node.shape).sum(axis=1))
        entry = np.arange(many.sum()) + np.repeat(first - np.cumsum(many) + many, many)
        cell = row * len(self.classes_) + self.label_[entry]
        votes = np.bincount(cell, self.share_[entry], minlength=len(x) * len(self.classes_))
        votes = votes.reshape(len(x), len(self.classes_))
        return np.asarray(votes / votes.sum(axis=1, keepdims=True), np.float32)
