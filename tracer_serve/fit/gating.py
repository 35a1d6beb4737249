"""The one gate call of a fit, and what the certificate says beside the promise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.candidate import Paths
from tracer_serve.gate.certificate import Certificate, StageRow
from tracer_serve.gate.certify import certify, spent_delta
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.per_class import certify_per_class, class_thresholds, with_class_table
from tracer_serve.gate.risk_control import certify_overall
from tracer_serve.types import Bools, Floats, Ints, Labels

StageFacts = tuple[str, str | None, float, float]
"""A stage's surrogate, acceptor, and milliseconds per row of predicting and of embedding, as in `StageRow`."""


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """Rows that the certificate may stand on, n of them.

    Parameters
    ----------
    mode : ``strict`` or ``cross_fit``: how the paths came about
    row : index into the rows of the fit, shape (n,)
    fair : rows that are a fair sample of traffic; only these enter the certificate, shape (n,)
    classes : what class indices mean, shape (k,)
    truth : the teacher's label, shape (n,)
    group : of near-duplicates, shape (n,)
    predicted : P(agree) of each stage and row by rows that are not among these, shape (s, n); None spends a pilot
        (`gate.pilot`)
    rivals : surrogates that were compared on these rows, and may have won by luck
    """

    mode: str
    paths: Paths
    row: Ints
    fair: Bools
    classes: Labels
    truth: Ints
    group: Ints
    predicted: Floats | None = None
    rivals: int = 1


def gate_of(task: Task, tested: Tested, index: int = 1, alpha: float | None = None) -> Certificate:
    """Make the promise that the spec asks for, for whichever of the rivals was chosen: they share delta.

    Choosing by the other folds alone is not enough: a surrogate that is lucky in two folds is chosen for both. Of
    twelve that were all just under alpha one was certified in 10 % of draws at a delta of 5 %.

    Parameters
    ----------
    index : which certificate of the task this is, counted from 1
    alpha : another one than the spec's, to see what would be
    """
    gate, paths = task.spec.gate, tested.paths.take(tested.fair)
    predicted = None if tested.predicted is None else tested.predicted[:, tested.fair]
    common: dict[str, Any] = {"alpha": alpha or gate.alpha, "mode": tested.mode, "min_coverage": gate.min_coverage}
    common |= {"groups": tested.group[tested.fair], "seed": task.spec.fit.seed}
    if gate.guarantee == "overall":
        return certify_overall(paths.score[0], paths.agreed[0], eligible=paths.eligible[0], **common)
    common |= {"delta": gate.delta / tested.rivals, "spend": gate.spend, "index": index}
    if gate.per_class:
        found = certify_per_class(
            paths.score[0],
            paths.agreed[0],
            None if predicted is None else predicted[0],
            answers=tested.classes[paths.top[0]],
            eligible=paths.eligible[0],
            **common,
        )
    else:
        found = certify(paths.score, paths.agreed, predicted, eligible=paths.eligible, **common)
    return replace(found, delta=spent_delta(gate.delta, gate.spend, index), rivals=tested.rivals)


def certified(
    task: Task, tested: Tested, stages: Sequence[StageFacts], index: int = 1
) -> tuple[Certificate, Calibration]:
    """Certify, and return the calibration rows as the certificate sees them.

    Parameters
    ----------
    stages : of the policy that will be served
    """
    found, paths = gate_of(task, tested, index), tested.paths
    stage = paths.answering(class_thresholds(found, tested.classes))
    each = np.arange(len(stage))
    seen = Calibration(
        row=tested.row,
        classes=tested.classes,
        top=paths.top[stage, each],
        second=paths.second[stage, each],
        truth=tested.truth,
        agreed=paths.agreed[stage, each],
        score=paths.score[stage, each],
        scope=paths.scope[stage, each],
        eligible=paths.eligible[stage, each],
        fair=tested.fair,
        stage=np.maximum(stage - (len(paths.score) - len(stages)), 0),
    )
    if not found.per_class and found.guarantee == "probability":
        fair = tested.fair
        given = seen.classes[seen.top[fair]]
        found = with_class_table(found, given, seen.score[fair], seen.agreed[fair], seen.eligible[fair])
    floor = task.spec.gate.class_floor or 0.0
    return replace(found, class_floor=floor, stages=_stages(found, seen, stages)), seen


def _stages(found: Certificate, seen: Calibration, stages: Sequence[StageFacts]) -> tuple[StageRow, ...]:
    """Return what each stage contributes on the fair rows."""
    threshold = class_thresholds(found, seen.classes)[seen.top]
    handled = seen.fair & seen.eligible & accepts(seen.score, threshold)
    total = reached = int(seen.fair.sum())
    table = []
    for number, (surrogate, acceptor, *took) in enumerate(stages):
        mine = handled & (seen.stage == number)
        n, k = int(mine.sum()), int((mine & seen.agreed).sum())
        table.append(StageRow(surrogate, acceptor, n, k, n / max(1, total), reached / max(1, total), *took))
        reached -= n
    return tuple(table)
