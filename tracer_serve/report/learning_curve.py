"""Learning curve: certified coverage over the number of traces, and a forecast for twice as many.

A point at m traces: the chosen surrogate is fitted on 0.8 m random rows, as in a five-fold cross-fit, and scores m
other rows; its acceptor is cross-fitted on those, and the gate walks at the task's alpha and delta. Small m are
repeated. The last point is the certificate itself, where the refits test the same promise. See `report.forecast`.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.ngram_rarity import NgramRarity
from tracer_serve.components.registry import surrogates
from tracer_serve.config.load import Task
from tracer_serve.fit.cross_fit import aligned, fit_surrogate, top_two
from tracer_serve.fit.cross_score import cross_predicted, cross_score
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certify import certify
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.scope_guard import scope_scores, scope_threshold
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.infra.parallel import HEAVY
from tracer_serve.policy.stage import gather
from tracer_serve.protocols import Acceptor, Surrogate
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.forecast import RefitCurve, forecast_of, method_of
from tracer_serve.types import Bools, Floats, Inputs, Ints

METHOD = "{what} is refitted on random parts of the calibration rows and certified by the gate on other rows."
_PARTS = ((1 / 8, 3), (1 / 4, 2), (1 / 2, 1))  # share of the traces, repetitions
_MOST = 8_000  # traces of a point: keeps the report of 50,000 rows under half a minute
_FEWEST = 30  # traces of a point
_FITTED = 0.8
_FOLDS = 5
_LEAST = 10  # best rows of a reach: fewer agree by chance
_GREW = 0.05
_FEW = 30  # below this many traces, too few examples are the likelier cause


@dataclass(frozen=True, slots=True, eq=False)
class CurvePoint:
    """One refit: coverage and reach at m traces, and the handled share per label (NaN if it met none)."""

    traces: int
    coverage: float
    reach: float
    handled: Floats


def plateau_of(task: Task, fitted: Fitted, seen: CalibrationView) -> dict[str, Any]:
    """Return the points of the learning curve, its forecast, and which labels grow, starve or have plateaued."""
    heavy = getattr(fitted.policy.surrogate, "cost", 1.0) >= HEAVY  # a refit would take minutes
    surrogate = surrogates.build("logreg") if heavy else fitted.policy.surrogate
    measured = [
        refit_point(task, surrogate, fitted.policy.acceptor, seen, traces, repetition)
        for traces, repetitions in plan(len(seen))
        for repetition in range(repetitions)
    ]
    points = [{"traces": p.traces, "coverage": p.coverage, "measured": "refit"} for p in measured]
    found = seen.certificate
    # strict: the served model was fitted on rows that are not among these; the other promises are not what refits test
    each = found.per_class or found.protected or found.segments
    comparable = found.mode != "strict" and not each and found.guarantee == "probability" and not heavy
    if comparable:
        points.append({"traces": len(seen), "coverage": found.handled_share, "measured": "certificate"})
    total = len(np.union1d(fitted.trained, fitted.calibration.row))
    reach = _reach(seen.score, seen.agreed, seen.eligible, found.alpha)
    curve = RefitCurve(
        *(np.array([getattr(p, key) for p in measured], float) for key in ("traces", "coverage", "reach"))
    )
    ahead = forecast_of(curve, found.handled_share, reach, len(seen) if comparable else None, total)
    what = "Logistic regression" if heavy else "The last stage" if found.stages[1:] else "The chosen surrogate"
    same = measured and not heavy
    return {
        "method": METHOD.format(what=what) + (method_of(ahead["basis"]) if ahead else ""),
        "points": points,
        "forecast": ahead,
        "labels_at": measured[-1].traces if same else None,
        "labels": _labels(seen, measured[-1].handled if same else None),
    }


def plan(rows: int) -> list[tuple[int, int]]:
    """Return (traces, repetitions) of the refits, smallest first. The rows decide alone, never the machine.

    Examples
    --------
    >>> plan(500), plan(300)
    ([(62, 3), (125, 2), (250, 1)], [(37, 3), (75, 2), (150, 1)])
    """
    sizes = ((int(part * min(rows, 2 * _MOST)), repetitions) for part, repetitions in _PARTS)
    return [(traces, repetitions) for traces, repetitions in sizes if traces >= _FEWEST]


def refit_point(  # noqa: PLR0917  # a refit's parts
    task: Task, model: Surrogate, acceptor: Acceptor | None, seen: CalibrationView, traces: int, seed: int
) -> CurvePoint:
    """Refit a surrogate on 0.8 `traces` rows and certify it on up to `traces` others."""
    order = np.random.default_rng([seed, traces]).permutation(len(seen))
    train, test = np.split(order[: int(_FITTED * traces) + traces], [int(_FITTED * traces)])
    inputs, labels = Inputs(seen.texts, seen.vectors), seen.classes[seen.truth]
    surrogate = fit_surrogate(copy.deepcopy(model), inputs.take(train), labels[train], traces)
    near = NeighbourIndex().fit(seen.vectors[train], seen.truth[train]).query(seen.vectors[test])
    evidence = aligned(gather(surrogate, inputs.take(test), near), surrogate.classes_, seen.classes)
    agreed = top_two(evidence.proba)[0] == seen.truth[test]
    fold = np.arange(len(test)) % _FOLDS
    score: Floats = np.zeros(len(test))
    if acceptor is not None:
        crossed = cross_score(lambda: copy.deepcopy(acceptor), acceptor.features(evidence), agreed, fold)
        score = score if crossed is None else crossed
    known = NgramRarity(seed).fit([seen.texts[i] for i in train])
    scope = scope_scores(evidence.proba, near.similarity, known.of([seen.texts[i] for i in test]))
    gate = task.spec.gate
    eligible = scope >= scope_threshold(scope, gate.scope.keep)
    rows = CalibrationRows(score, agreed, cross_predicted(score, agreed, fold), eligible)
    found = certify(rows, GateSettings(gate.alpha, gate.delta, "cross_fit", gate.min_coverage))
    handled = eligible & accepts(score, found.threshold)
    reach = _reach(score, agreed, eligible, gate.alpha)
    return CurvePoint(traces, found.handled_share, reach, _per_label(seen, test, handled))


def _reach(score: Floats, agreed: Bools, eligible: Bools, alpha: float) -> float:
    """Return the largest share of best-scored rows whose measured agreement is at least alpha."""
    order = np.argsort(-np.where(eligible, np.nan_to_num(score, nan=-np.inf), -np.inf), kind="stable")
    order = order[: int(eligible.sum())]
    passing = np.flatnonzero(np.cumsum(agreed[order]) >= alpha * np.arange(1, len(order) + 1))
    best = int(passing[-1]) + 1 if len(passing) else 0
    return best / len(score) if best >= _LEAST else 0.0


def _per_label(seen: CalibrationView, rows: Ints, handled: Any) -> Floats:
    size = len(seen.classes)
    count, hit = np.bincount(seen.truth[rows], minlength=size), np.bincount(seen.truth[rows], handled, size)
    rate: Floats = np.where(count > 0, hit / np.maximum(count, 1), np.nan)
    return rate


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
