"""Learning curve: certified coverage over the number of traces, and a forecast for twice as many.

A point at m traces: the chosen surrogate is fitted on 0.8 m random rows, as in a five-fold cross-fit, and scores m
other rows; its acceptor is cross-fitted on those, and the gate walks at the task's alpha and delta. Small m are
repeated. The last point is the certificate itself. The deferred share is then taken to follow a power law of m, by
least squares on the logarithms; leaving out one m at a time gives its range. A planning figure, not a promise.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.ngram_rarity import NgramRarity
from tracer_serve.config.load import Task
from tracer_serve.fit.cross_fit import aligned, fit_surrogate, top_two
from tracer_serve.fit.cross_score import cross_predicted, cross_score
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certify import certify
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.scope_guard import scope_scores, scope_threshold
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.infra.parallel import HEAVY
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.stage import gather
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.types import Floats, Inputs, Ints

METHOD = "{what} is refitted on random parts of the calibration rows and certified by the gate on other rows."
FORECAST = (
    " Forecast: the deferred share follows a power law of the traces; its range comes from omitting one size at a time."
)
_PARTS = ((1 / 8, 3), (1 / 4, 2), (1 / 2, 1))  # share of the traces, repetitions
_MOST = 8_000  # traces of a point: keeps the report of 50,000 rows under half a minute
_FEWEST = 60  # traces of a point
_FITTED = 0.8
_FOLDS = 5
_GREW = 0.05
_FEW = 30  # below this many traces, too few examples are the likelier cause


@dataclass(frozen=True, slots=True, eq=False)
class CurvePoint:
    """One refit: certified coverage at m traces, and the handled share per label (NaN where it met none)."""

    traces: int
    coverage: float
    handled: Floats


def plateau_of(task: Task, fitted: Fitted, seen: CalibrationView) -> dict[str, Any]:
    """Return the points of the learning curve, its forecast, and which labels grow, starve or have plateaued."""
    heavy = getattr(fitted.policy.surrogate, "cost", 1.0) >= HEAVY  # a refit would take minutes
    measured = [
        refit_point(task, fitted.policy, seen, traces, repetition)
        for traces, repetitions in plan(0 if heavy else len(seen))
        for repetition in range(repetitions)
    ]
    points = [{"traces": p.traces, "coverage": p.coverage, "measured": "refit"} for p in measured]
    found = seen.certificate
    # strict: the served model was fitted on rows that are not among these; the other promises are not what refits test
    each = found.per_class or found.protected or found.segments
    comparable = found.mode != "strict" and not each and found.guarantee == "probability"
    if comparable:
        points.append({"traces": len(seen), "coverage": found.handled_share, "measured": "certificate"})
    sizes, coverage = (np.array([p[key] for p in points], float) for key in ("traces", "coverage"))
    ahead = forecast(sizes, coverage) if comparable else None
    what = "The last stage" if found.stages[1:] else "The chosen surrogate"
    return {
        "method": METHOD.format(what=what) + (FORECAST if ahead else ""),
        "points": points,
        "forecast": ahead,
        "labels_at": measured[-1].traces if measured else None,
        "labels": _labels(seen, measured[-1].handled if measured else None),
    }


def plan(rows: int) -> list[tuple[int, int]]:
    """Return (traces, repetitions) of the refits, smallest first. The rows decide alone, never the machine.

    Examples
    --------
    >>> plan(500), plan(300)
    ([(62, 3), (125, 2), (250, 1)], [(75, 2), (150, 1)])
    """
    sizes = ((int(part * min(rows, 2 * _MOST)), repetitions) for part, repetitions in _PARTS)
    return [(traces, repetitions) for traces, repetitions in sizes if traces >= _FEWEST]


def refit_point(task: Task, policy: Policy, seen: CalibrationView, traces: int, seed: int) -> CurvePoint:
    """Refit the served surrogate on 0.8 `traces` rows and certify it on up to `traces` others."""
    order = np.random.default_rng([seed, traces]).permutation(len(seen))
    train, test = np.split(order[: int(_FITTED * traces) + traces], [int(_FITTED * traces)])
    inputs, labels = Inputs(seen.texts, seen.vectors), seen.classes[seen.truth]
    surrogate = fit_surrogate(copy.deepcopy(policy.surrogate), inputs.take(train), labels[train], traces)
    near = NeighbourIndex().fit(seen.vectors[train], seen.truth[train]).query(seen.vectors[test])
    evidence = aligned(gather(surrogate, inputs.take(test), near), surrogate.classes_, seen.classes)
    agreed = top_two(evidence.proba)[0] == seen.truth[test]
    fold = np.arange(len(test)) % _FOLDS
    score: Floats = np.zeros(len(test))
    if policy.acceptor is not None:
        acceptor = policy.acceptor
        crossed = cross_score(lambda: copy.deepcopy(acceptor), acceptor.features(evidence), agreed, fold)
        score = score if crossed is None else crossed
    known = NgramRarity(seed).fit([seen.texts[i] for i in train])
    scope = scope_scores(evidence.proba, near.similarity, known.of([seen.texts[i] for i in test]))
    gate = task.spec.gate
    eligible = scope >= scope_threshold(scope, gate.scope.keep)
    rows = CalibrationRows(score, agreed, cross_predicted(score, agreed, fold), eligible)
    found = certify(rows, GateSettings(gate.alpha, gate.delta, "cross_fit", gate.min_coverage))
    handled = eligible & accepts(score, found.threshold)
    return CurvePoint(traces, found.handled_share, _per_label(seen, test, handled))


def _per_label(seen: CalibrationView, rows: Ints, handled: Any) -> Floats:
    size = len(seen.classes)
    count, hit = np.bincount(seen.truth[rows], minlength=size), np.bincount(seen.truth[rows], handled, size)
    rate: Floats = np.where(count > 0, hit / np.maximum(count, 1), np.nan)
    return rate


def forecast(traces: Floats, coverage: Floats) -> dict[str, Any] | None:
    """Return the forecast coverage at twice the traces, with its range; None if too little was certified.

    Examples
    --------
    >>> deferred = 0.4 * np.array([1.0, 2.0, 4.0]) ** -0.5
    >>> round(forecast(np.array([100.0, 200.0, 400.0]), 1 - deferred)["coverage"], 3)
    0.859
    """
    abstained = np.unique(traces[(coverage <= 0.0) | (coverage >= 1.0)])
    usable = ~np.isin(traces, abstained)
    sizes = np.unique(traces[usable])
    if len(sizes) < 3 or traces.max() not in sizes:  # noqa: PLR2004  # two points cannot be doubted
        return None
    x, y = np.log(traces[usable]), np.log1p(-coverage[usable])
    slopes = [_slope(x, y), *(_slope(x[x != out], y[x != out]) for out in np.log(sizes))]
    exponents = [max(0.0, -slope) for slope in slopes]
    deferred = 1.0 - float(coverage[traces == traces.max()][-1])
    at_twice = [1.0 - deferred * math.pow(2.0, -exponent) for exponent in exponents]
    return {
        "traces": int(2 * traces.max()),
        "coverage": at_twice[0],
        "low": min(at_twice),
        "high": max(at_twice),
        "exponent": exponents[0],
    }


def _slope(x: Floats, y: Floats) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def _labels(seen: CalibrationView, earlier: Floats | None) -> list[dict[str, Any]]:
    """Return the labels handled less often than the average, and whether more traces would help them."""
    size = len(seen.classes)
    rows = np.bincount(seen.truth, minlength=size)
    handled = np.bincount(seen.truth, seen.handled, size)
    rate, overall = handled / np.maximum(rows, 1), float(seen.handled.mean())
    grown = np.full(size, np.nan) if earlier is None else rate - earlier
    state = np.select([grown >= _GREW, rows < _FEW, np.isfinite(grown)], ["grows", "starves", "plateaued"], "unknown")
    behind = np.flatnonzero((rate < overall) & (rows > 0))
    return [
        {
            "label": seen.classes[i],
            "rows": rows[i],
            "handled_share": rate[i],
            "earlier": None if earlier is None else earlier[i],
            "state": state[i],
        }
        for i in behind[np.argsort((rate - overall)[behind] * rows[behind], kind="stable")]
    ]
