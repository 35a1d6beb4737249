"""Write a policy as one ONNX file: vectors in; label, score and whether the certificate lets the surrogate answer out.

All runtimes that read ONNX can run it; none of them watches the gate. Probabilities are float32 as in this server,
learned scores and the scope guard are float64.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tracer_serve.errors import PluginError
from tracer_serve.gate.certificate import CERTIFICATE
from tracer_serve.gate.per_class import class_thresholds
from tracer_serve.gate.scope_guard import COSINE_WEIGHT, RARITY_WEIGHT
from tracer_serve.policy.onnx_export.acceptors import Answers, score
from tracer_serve.policy.onnx_export.graph import Graph
from tracer_serve.policy.onnx_export.neighbours import Indexes, NearestRows, scaled_to_length_one
from tracer_serve.policy.onnx_export.surrogates import probabilities
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.stage import Stage


def export_policy(policy: Policy, file: Path, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Write a policy as ONNX; return the names of the graph's inputs.

    Inputs are ``vectors``, float32, shape (n, d), as the policy's embedder makes them; and, where the scope guard reads
    texts, ``rarity``, float32, shape (n,), as `components.ngram_rarity.NgramRarity.of` measures it. Outputs are
    ``label``, int64, an index into the labels in the metadata; ``score``, float64; ``handled``, bool; each (n,).

    Parameters
    ----------
    facts : further metadata

    Raises
    ------
    PluginError
        If a part of the policy cannot be exported; the error names it. Or the package onnx is missing.
    """
    stage = _exportable(policy)
    graph, dim = Graph(), stage.view.index.vectors.shape[1]
    indexes = Indexes(graph, scaled_to_length_one(graph, "vectors"))
    near = partial(indexes.near, stage.view.index)
    name = f"surrogate {stage.names[0]}"
    proba, members = probabilities(graph, stage.surrogate, "vectors", indexes, name)
    answers = Answers.of(graph, proba, members, len(policy.classes))
    found = score(graph, stage.acceptor, answers, near, f"acceptor {stage.names[1]}")
    reads_texts = math.isfinite(stage.scope_threshold) and policy.inputs.fitted
    handled = _handled(graph, policy, stage, answers, found)
    if math.isfinite(stage.scope_threshold):
        scope = _scope(graph, answers, near, reads_texts=reads_texts)
        in_scope = graph.op("GreaterOrEqual", scope, graph.constant(stage.scope_threshold, np.float64))
        handled = graph.op("And", handled, in_scope)
    column = graph.constant(1, np.int64)
    for result, output in ((answers.top, "label"), (found, "score"), (handled, "handled")):
        graph.name(graph.op("Squeeze", result, column), output)
    inputs: dict[str, tuple[Any, list[Any]]] = {"vectors": (np.float32, ["n", dim])}
    if reads_texts:
        inputs["rarity"] = (np.float32, ["n"])
    outputs = {"label": (np.int64, ["n"]), "score": (np.float64, ["n"]), "handled": (np.bool_, ["n"])}
    graph.write(file, inputs, outputs, {**_facts(policy, stage), **facts})
    return tuple(inputs)


def _exportable(policy: Policy) -> Stage:
    """Return the policy's only stage, if the graph can decide as it does."""
    certificate = policy.certificate
    if not certificate.certified:
        raise PluginError(f"this version has no certificate ({certificate.reason}): the graph would handle nothing")
    if len(policy.stages) > 1:
        names = ", then ".join(stage.names[0] for stage in policy.stages)
        raise PluginError(
            f"the cascade {names} cannot be exported: each stage has vectors of its own. Leave `cascade` out of"
            " `gate.families` and fit again"
        )
    if certificate.segments:
        raise PluginError("gate.segments cannot be exported: its patterns read the text. Leave it out and fit again")
    (stage,) = policy.stages
    if len(stage.scale.knots):
        raise PluginError("the stage's score scale cannot be exported. Fit again without a cascade")
    return stage


def _handled(graph: Graph, policy: Policy, stage: Stage, answers: Answers, found: str) -> str:
    """Return whether threshold, class floor and veto let the surrogate answer, (n, 1)."""
    threshold = np.where(stage.open, class_thresholds(policy.certificate, policy.classes), np.inf)
    least = graph.op("Gather", graph.constant(threshold, np.float64), answers.top)
    handled = graph.op("GreaterOrEqual", found, least)
    largest = graph.constant(np.finfo(np.float64).max, np.float64)
    handled = graph.op("And", handled, graph.op("LessOrEqual", found, largest))  # neither inf nor NaN
    for label in np.flatnonzero(np.isfinite(stage.limits)):
        proba = graph.op("Gather", answers.proba, graph.constant(label, np.int64), axis=1)
        limit = graph.constant(stage.limits[label], np.float64)
        may_be = graph.op("Greater", graph.cast(proba, np.float64), limit)
        other = graph.op("Not", graph.op("Equal", answers.top, graph.constant(label, np.int64)))
        handled = graph.op("And", handled, graph.op("Not", graph.op("And", may_be, other)))
    return str(handled)


def _scope(graph: Graph, answers: Answers, near: Callable[[], NearestRows], *, reads_texts: bool) -> str:
    """Return `gate.scope_guard.scope_scores`, float64, (n, 1)."""
    rows = near()
    tiny = graph.constant(np.finfo(np.float64).tiny, np.float64)
    top = graph.op("Log", graph.op("Max", graph.cast(answers.first, np.float64), tiny))
    axis = graph.constant(1, np.int64)
    there = graph.cast(rows.there, np.float64)
    known = graph.op("Where", rows.there, rows.similarity, graph.constant(0.0))
    total = graph.op("ReduceSum", graph.cast(known, np.float64), axis, keepdims=1)
    mean = graph.op("Div", total, graph.op("ReduceSum", there, axis, keepdims=1))
    scope = graph.op("Add", top, graph.op("Mul", mean, graph.constant(COSINE_WEIGHT, np.float64)))
    if reads_texts:
        rarity = graph.cast(graph.op("Unsqueeze", "rarity", axis), np.float64)
        scope = graph.op("Sub", scope, graph.op("Mul", rarity, graph.constant(RARITY_WEIGHT, np.float64)))
    return str(scope)


def _facts(policy: Policy, stage: Stage) -> dict[str, Any]:
    """Return the metadata: the certificate, and what the caller has to know of the inputs."""
    certificate = CERTIFICATE.dump_python(policy.certificate, mode="json", exclude={"walk"})
    return {
        "certificate": certificate,
        "labels": [str(label) for label in policy.classes],
        "threshold": policy.certificate.threshold if math.isfinite(policy.certificate.threshold) else None,
        "scope_threshold": stage.scope_threshold if math.isfinite(stage.scope_threshold) else None,
        "longest_text": policy.inputs.longest,
        "embedder": policy.fingerprint,
    }
