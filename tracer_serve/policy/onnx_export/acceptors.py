"""Acceptors as ONNX: from probabilities and nearest rows to the score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tracer_serve.components.acceptors._proba import TINY
from tracer_serve.components.acceptors.logistic import Logistic
from tracer_serve.components.acceptors.margin import Margin
from tracer_serve.components.acceptors.top1 import Top1
from tracer_serve.errors import PluginError
from tracer_serve.policy.onnx_export.graph import Graph
from tracer_serve.policy.onnx_export.neighbours import NearestRows
from tracer_serve.protocols import Acceptor


@dataclass(frozen=True, slots=True)
class Answers:
    """Names of results: probabilities (n, k), of members too; the two largest, and the class, each (n, 1)."""

    proba: str
    members: Sequence[str]
    first: str
    second: str
    top: str

    @classmethod
    def of(cls, graph: Graph, proba: str, members: Sequence[str], classes: int) -> "Answers":
        """Find the most probable classes."""
        top = graph.op("ArgMax", proba, axis=1, keepdims=1)
        if classes == 1:
            return cls(proba, members, proba, graph.op("Mul", proba, graph.constant(0.0)), top)
        best, _ = graph.op("TopK", proba, graph.constant(2, np.int64), outputs=2)
        first, second = graph.op("Split", best, graph.constant([1, 1], np.int64), outputs=2, axis=1)
        return cls(proba, members, first, second, top)


def score(graph: Graph, acceptor: Acceptor | None, answers: Answers, near: Callable[[], NearestRows], name: str) -> str:
    """Return the acceptor's score, float64, shape (n, 1).

    Raises
    ------
    PluginError
        If the acceptor cannot be exported.
    """
    if acceptor is None:
        zero = graph.op("Mul", answers.first, graph.constant(0.0))
        return graph.cast(zero, np.float64)
    if isinstance(acceptor, Top1) or (isinstance(acceptor, Logistic) and not acceptor.learnt):
        return graph.cast(answers.first, np.float64)
    if isinstance(acceptor, Margin):
        return graph.cast(graph.op("Sub", answers.first, answers.second), np.float64)
    if isinstance(acceptor, Logistic):
        features = graph.cast(_features(graph, acceptor, answers, near()), np.float64)
        centred = graph.op("Sub", features, graph.constant(acceptor.mean, np.float64))
        weights = graph.constant((acceptor.weights / acceptor.scale)[:, None], np.float64)
        linear = graph.op("Add", graph.op("MatMul", centred, weights), graph.constant(acceptor.intercept, np.float64))
        return str(graph.op("Sigmoid", linear))
    raise PluginError(
        f"{name} cannot be exported: a graph can compute logistic, margin and top1. Write `acceptors: [logistic]` and"
        " fit again"
    )


def _features(graph: Graph, acceptor: Logistic, answers: Answers, near: NearestRows) -> str:
    """Return the columns of `Logistic.features`, shape (n, f)."""
    first, second, tiny = answers.first, answers.second, graph.constant(TINY)
    inside = graph.op("Max", answers.proba, tiny)
    plogp = graph.op("Mul", inside, graph.op("Log", inside))
    entropy = graph.op("Neg", graph.op("ReduceSum", plogp, graph.constant(1, np.int64), keepdims=1))
    ratio = graph.op("Log", graph.op("Div", graph.op("Max", first, tiny), graph.op("Max", second, tiny)))
    member = [_odds(graph, graph.op("GatherElements", one, answers.top, axis=1)) for one in answers.members]
    columns = [first, second, graph.op("Sub", first, second), entropy, _odds(graph, first), ratio]
    return str(graph.op("Concat", *columns, *_near(graph, acceptor.neighbours, answers.top, near), *member, axis=1))


def _odds(graph: Graph, proba: str) -> str:
    inside = graph.op("Max", graph.op("Min", proba, graph.constant(1 - TINY)), graph.constant(TINY))
    outside = graph.op("Sub", graph.constant(1.0), inside)
    return str(graph.op("Sub", graph.op("Log", inside), graph.op("Log", outside)))


def _near(graph: Graph, count: int, top: str, near: NearestRows) -> list[str]:
    """Return the columns of `logistic._near`, each (n, 1)."""
    whole = (near.similarity, near.label, near.there)
    similarity, label, there = (_first(graph, one, count) for one in whole)
    same = graph.op("And", there, graph.op("Equal", label, top))
    other = graph.op("And", there, graph.op("Not", same))
    one, low = graph.constant(1.0), graph.constant(-1.0)
    known = graph.op("Where", there, similarity, one)
    floor = graph.op("Min", graph.op("ReduceMin", known, axes=[1], keepdims=1), one)

    def best(mask: str) -> str:
        found = graph.op("ReduceMax", graph.op("Where", mask, similarity, floor), axes=[1], keepdims=1)
        return str(graph.op("Max", found, low))

    def total(value: str) -> str:
        return str(graph.op("ReduceSum", value, graph.constant(1, np.int64), keepdims=1))

    found = graph.op("Max", total(graph.cast(there, np.float32)), one)
    share = graph.op("Div", total(graph.cast(same, np.float32)), found)
    mean = graph.op("Div", total(graph.op("Where", there, similarity, graph.constant(0.0))), found)
    best_same, best_other = best(same), best(other)
    return [share, graph.op("Max", best_same, best_other), mean, best_same, graph.op("Sub", best_same, best_other)]


def _first(graph: Graph, value: str, count: int) -> str:
    bounds = (graph.constant(bound, np.int64) for bound in (0, count, 1))
    return str(graph.op("Slice", value, *bounds))
