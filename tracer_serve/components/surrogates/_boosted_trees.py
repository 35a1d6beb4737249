"""Validate a boosted-trees model file before xgboost reads it.

xgboost trusts its files: a child index or an array length that is wrong makes it read other memory, which ends the
process. Here the JSON is parsed, every index is checked, and only what was checked is passed on.
"""

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Numbers = list[float]
_Empty = Annotated[list[int], Field(max_length=0)]
_Count = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_ROOT = 2**31 - 1  # the parent of a root


class _Part(BaseModel):
    """A part of the file; keys that are not named here are dropped."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class _TreeParam(_Part):
    num_deleted: Literal["0"]
    num_feature: _Count
    num_nodes: _Count
    size_leaf_vector: Literal["0", "1"]


class _Tree(_Part):
    id: _Int32
    tree_param: _TreeParam
    left_children: list[_Int32]
    right_children: list[_Int32]
    parents: list[_Int32]
    split_indices: list[_Int32]
    split_type: list[Literal[0]]
    default_left: list[Literal[0, 1]]
    split_conditions: _Numbers
    base_weights: _Numbers
    loss_changes: _Numbers
    sum_hessian: _Numbers
    categories: _Empty
    categories_nodes: _Empty
    categories_segments: _Empty
    categories_sizes: _Empty

    def check(self, features: int) -> None:
        """Raise `ValueError` unless the nodes form a tree: every walk from the root ends, inside the arrays."""
        nodes = int(self.tree_param.num_nodes)
        arrays = {name: value for name, value in self if isinstance(value, list) and not name.startswith("categories")}
        if int(self.tree_param.num_feature) != features:
            raise ValueError(f"tree {self.id} has another number of features than the model")
        if not nodes or any(len(array) != nodes for array in arrays.values()):
            raise ValueError(f"tree {self.id} has arrays of another length than its {nodes} nodes")
        left, right, parents = (np.array(a) for a in (self.left_children, self.right_children, self.parents))
        inner = np.flatnonzero(left != -1)
        children = np.concatenate((left[inner], right[inner]))
        if (right[left == -1] != -1).any() or sorted(children.tolist()) != list(range(1, nodes)):
            raise ValueError(f"tree {self.id} has a node that is not the child of one other node")
        kept = (parents[children] == np.tile(inner, 2)) & (np.tile(inner, 2) < children)
        if parents[0] != _ROOT or not kept.all():
            raise ValueError(f"tree {self.id} has a node that does not follow its parent")
        split = np.array(self.split_indices)[inner]
        if (split < 0).any() or (split >= features).any():
            raise ValueError(f"tree {self.id} reads a feature beyond the {features} of the model")


class _TreesParam(_Part):
    num_parallel_tree: Literal["1"]
    num_trees: _Count


class _Trees(_Part):
    gbtree_model_param: _TreesParam
    iteration_indptr: list[_Int32]
    tree_info: list[_Int32]
    trees: list[_Tree]

    def check(self, classes: int, features: int) -> None:
        """Raise `ValueError` unless there is a tree of each class and round, and all of them are sound."""
        count = len(self.trees)
        if int(self.gbtree_model_param.num_trees) != count or count % classes:
            raise ValueError(f"it has {count} trees, not one of each class and round")
        if self.iteration_indptr != list(range(0, count + 1, classes)):
            raise ValueError("its rounds do not cover its trees")
        if self.tree_info != list(range(classes)) * (count // classes):
            raise ValueError("its trees belong to other classes")
        for place, tree in enumerate(self.trees):
            if tree.id != place:
                raise ValueError(f"tree {place} says that it is tree {tree.id}")
            tree.check(features)


class _Booster(_Part):
    model: _Trees
    name: Literal["gbtree"]


class _LearnerParam(_Part):
    base_score: Annotated[str, Field(pattern=r"^(\[[-+0-9.E,]+\]|[-+0-9.E]+)$")]
    boost_from_average: Literal["0", "1"]
    num_class: _Count
    num_feature: _Count
    num_target: Literal["1"]


class _SoftmaxParam(_Part):
    num_class: _Count


class _Objective(_Part):
    name: Literal["multi:softprob"]
    softmax_multiclass_param: _SoftmaxParam


class _Learner(_Part):
    attributes: Annotated[dict[str, Any], Field(max_length=0)]
    feature_names: _Empty
    feature_types: _Empty
    gradient_booster: _Booster
    learner_model_param: _LearnerParam
    objective: _Objective


class BoostedTrees(_Part):
    """A softmax booster with numeric splits, as xgboost writes it in JSON.

    Validation raises `ValueError` if the model could make xgboost read beyond its arrays or walk without end.
    """

    learner: _Learner
    version: Annotated[list[Annotated[int, Field(ge=0, le=999)]], Field(min_length=3, max_length=3)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        param, objective = self.learner.learner_model_param, self.learner.objective
        classes = int(param.num_class)
        if classes < 1 or int(objective.softmax_multiclass_param.num_class) != classes:
            raise ValueError("its objective has another number of classes than its trees")
        if param.base_score.startswith("[") and param.base_score.count(",") not in (0, classes - 1):
            raise ValueError("it has not one base score for each class")
        self.learner.gradient_booster.model.check(classes, int(param.num_feature))
        return self

    def content(self, classes: int) -> bytearray:
        """Return the validated part of the file, for `xgboost.Booster`.

        Raises
        ------
        ValueError
            If the model does not have this number of classes.
        """
        found = int(self.learner.learner_model_param.num_class)
        if found != classes:
            raise ValueError(f"its trees have {found} classes, its labels are {classes}")
        return bytearray(self.model_dump_json().encode())
