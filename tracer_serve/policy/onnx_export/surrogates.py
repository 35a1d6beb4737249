"""Surrogates as ONNX: from vectors to the probability of each class."""

from collections.abc import Sequence

import numpy as np

from tracer_serve.components.surrogates.blend import FLOOR, Blend
from tracer_serve.components.surrogates.knn import Knn
from tracer_serve.components.surrogates.logreg import LogReg
from tracer_serve.components.surrogates.mlp import Mlp
from tracer_serve.components.surrogates.sgd import Sgd
from tracer_serve.errors import PluginError
from tracer_serve.policy.onnx_export.graph import Graph
from tracer_serve.policy.onnx_export.neighbours import Indexes
from tracer_serve.protocols import Surrogate
from tracer_serve.types import Labels


def probabilities(
    graph: Graph, surrogate: Surrogate, vectors: str, indexes: Indexes, name: str
) -> tuple[str, Sequence[str]]:
    """Return the surrogate's probabilities (n, k) and those of each member of a blend, of another one its own.

    Parameters
    ----------
    name : what errors call the surrogate

    Raises
    ------
    PluginError
        If a part of it cannot be exported; the error names it.
    """
    if not isinstance(surrogate, Blend):
        proba = _single(graph, surrogate, vectors, indexes, name)
        return proba, [proba]
    parts = zip(surrogate.members, surrogate.fitted_, surrogate.sharpness_.tolist(), strict=True)
    members = []
    for component, member, sharpness in parts:
        proba = _single(graph, member, vectors, indexes, f"{name}, member {component.type}")
        logs = _logs(graph, _in_columns(graph, proba, member.classes_, surrogate.classes_))
        members.append(graph.op("Softmax", graph.op("Mul", graph.constant(sharpness), logs), axis=1))
    weighted = [
        graph.op("Mul", graph.constant(weight), _logs(graph, member))
        for weight, member in zip(surrogate.weights_.tolist(), members, strict=True)
    ]
    return graph.op("Softmax", graph.op("Sum", *weighted), axis=1), members


def _single(graph: Graph, surrogate: Surrogate, vectors: str, indexes: Indexes, name: str) -> str:
    if isinstance(surrogate, LogReg):
        return _softmax(graph, _linear(graph, vectors, surrogate.coef_.T, surrogate.intercept_))
    if isinstance(surrogate, Sgd):
        return _softmax(graph, _linear(graph, vectors, surrogate.coef_, surrogate.intercept_))
    if isinstance(surrogate, Mlp):
        hidden = graph.op("Relu", _linear(graph, vectors, surrogate.hidden_, surrogate.hidden_bias_))
        return _softmax(graph, _linear(graph, hidden, surrogate.output_, surrogate.output_bias_))
    if isinstance(surrogate, Knn):
        return _votes(graph, surrogate, indexes)
    raise PluginError(
        f"{name} cannot be exported: a graph has vectors as its input, and can compute logreg, sgd, mlp, knn and blends"
        " of these. Write `surrogates: [{type: blend, members: [mlp, knn, logreg]}]` and fit again"
    )


def _linear(graph: Graph, value: str, weights: np.ndarray, bias: np.ndarray) -> str:
    return str(graph.op("Add", graph.op("MatMul", value, graph.constant(weights)), graph.constant(bias)))


def _softmax(graph: Graph, logits: str) -> str:
    return str(graph.op("Softmax", logits, axis=1))


def _logs(graph: Graph, proba: str) -> str:
    return str(graph.op("Log", graph.op("Max", proba, graph.constant(FLOOR))))


def _in_columns(graph: Graph, proba: str, present: Labels, classes: Labels) -> str:
    """Return probabilities in the columns of all classes; a class that the member does not know has the least."""
    if len(present) == len(classes):
        return proba
    known = np.searchsorted(classes, present)
    moved = np.zeros((len(present), len(classes)))
    moved[np.arange(len(present)), known] = 1
    rest = np.full(len(classes), FLOOR)
    rest[known] = 0
    return _linear(graph, proba, moved, rest)


def _votes(graph: Graph, knn: Knn, indexes: Indexes) -> str:
    near, k = indexes.near(knn.index_), len(knn.classes_)
    nearest = graph.op("ReduceMax", near.similarity, axes=[1], keepdims=1)
    below = graph.op("Div", graph.op("Sub", near.similarity, nearest), graph.constant(knn.temperature))
    weight = graph.op("Where", near.there, graph.op("Exp", below), graph.constant(0.0))
    column = graph.op("Unsqueeze", near.label, graph.constant(2, np.int64))
    votes_for = graph.cast(graph.op("Equal", column, graph.constant(np.arange(k), np.int64)), np.float32)
    cast = graph.op("Mul", graph.op("Unsqueeze", weight, graph.constant(2, np.int64)), votes_for)
    votes = graph.op("ReduceSum", cast, graph.constant(1, np.int64), keepdims=0)
    total = graph.op("ReduceSum", weight, graph.constant(1, np.int64), keepdims=1)
    share = graph.op("Mul", graph.op("Div", votes, total), graph.constant(1 - knn.smoothing))
    return str(graph.op("Add", share, graph.constant(knn.smoothing / k)))
