"""Estimate coverage at several alphas before deployment: one cross-fit, one gate call per alpha.

Every row of the table is a certificate at delta, as if that alpha had been asked for from the start; to look at many
and keep the best is none. The learning curve cross-fits the same surrogate on random parts of the traces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.errors import FitError
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.comparison import Compared, compare, select
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.fit_progress import costs_of, dearest_fold
from tracer_serve.fit.gating import recalls_of, segment_of, settings_of
from tracer_serve.fit.holdout import CROSS_FIT_ROWS
from tracer_serve.fit.pipeline import calibration_of
from tracer_serve.fit.progress import Progress, Timeline, silent
from tracer_serve.gate.certificate import Certificate, LabelRecall
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import GateSettings
from tracer_serve.gate.wording import bound_of, recall_warning
from tracer_serve.infra.parallel import HEAVY, at_once
from tracer_serve.protocols import Embedder
from tracer_serve.report.fields import FieldRow, field_rows
from tracer_serve.report.forecast import forecast

ALPHAS = (0.80, 0.85, 0.90, 0.95, 0.97, 0.99)
_PARTS = (1 / 8, 1 / 4, 1 / 2)
_FEWEST = 60  # traces of a point on the curve
_CURVE = "learning curve"


@dataclass(frozen=True, slots=True)
class ScanPoint:
    """Result at one alpha.

    Parameters
    ----------
    coverage : certified share of traffic, 0 if nothing certifies
    agreement, lower_bound : among handled rows, measured and certified; None if nothing certifies
    reason, rows_needed : as in `Certificate`
    calls_saved : share of teacher calls saved, net of audits
    recalls : a row per teacher label, lowest recall of the system first, as in `Certificate`
    warning : about labels with a low recall; empty if there is none
    curve : (traces, coverage) over parts of the traces, all of them last
    twice : forecast coverage with twice the traces, with its range; None if there are too few points
    """

    alpha: float
    coverage: float
    agreement: float | None
    lower_bound: float | None
    reason: str
    rows_needed: int
    surrogate: str
    calls_saved: float
    recalls: tuple[LabelRecall, ...]
    warning: str
    curve: tuple[tuple[int, float], ...]
    twice: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Scan:
    """Scan of one trace file.

    Parameters
    ----------
    rows, used : number of traces read, and used by the cross-fit
    labels : number of distinct teacher labels, with fields of distinct answers
    fields : a row per field of the answer at the alpha nearest to the task's, what costs most coverage first
    """

    rows: int
    used: int
    labels: int
    delta: float
    audit_rate: float
    embedder: str
    points: tuple[ScanPoint, ...]
    fields: tuple[FieldRow, ...] = ()


def bare_task(file: Path, *, pair: bool, embedder: str, delta: float) -> Task:
    """Return a task for a trace file that has no YAML."""
    spec = Spec.model_validate(
        {
            "name": "scan",
            "input": "pair" if pair else "text",
            "embedder": embedder,
            "gate": {"delta": delta},
            "teacher": {"type": "offline", "file": [str(file.resolve())]},
        }
    )
    return Task(spec, file, "")


def scan(
    task: Task,
    rows: Rows,
    embedders: Sequence[Embedder],
    progress: Progress = silent,
    *,
    alphas: Sequence[float] = ALPHAS,
) -> Scan:
    """Cross-fit once and certify at each alpha.

    Parameters
    ----------
    embedders : the task's (`make_embedders`), called once per part of the curve, so pass cached ones

    Raises
    ------
    FitError
        If there are too few rows to split, or every surrogate failed.
    """
    if len(rows) < 2 * task.spec.fit.folds:
        raise FitError(f"{len(rows)} labelled traces are too few for {task.spec.fit.folds} folds")
    used = _part(rows.grouped(task.spec.gate.group_by), min(len(rows), CROSS_FIT_ROWS), task.spec.fit.seed)
    timeline = Timeline.of(progress)
    sizes = [int(part * len(used)) for part in _PARTS if part * len(used) >= _FEWEST]
    timeline.plan(_CURVE, sum(sizes), expected_s=_row_seconds(task, used))
    compared = compare(task, used, embedders, timeline)
    whole = {alpha: _at(task, used, compared, alpha) for alpha in alphas}
    nearest = min(alphas, key=lambda alpha: abs(alpha - task.spec.gate.alpha))
    alone = _only(task, whole[nearest][1])
    mine = [embedders[task.spec.embedders.index(one)] for one in alone.spec.embedders]
    curves: dict[float, list[tuple[int, float]]] = {alpha: [] for alpha in alphas}
    for number, size in enumerate(sizes):
        timeline.step(_CURVE, _CURVE, sum(sizes[:number]))
        part = _part(used, size, task.spec.fit.seed)
        smaller = compare(alone, part, mine, silent)
        for alpha in alphas:
            curves[alpha].append((size, _at(alone, part, smaller, alpha)[0].handled_share))
    if sizes:
        timeline.step(_CURVE, _CURVE, sum(sizes))
    audit_rate = task.spec.traces.audit_share
    points = []
    for alpha, (found, surrogate) in whole.items():
        curve = (*curves[alpha], (len(used), found.handled_share))
        points.append(_point(found, alpha, task.spec.surrogates[surrogate].name, audit_rate, curve))
    return Scan(
        rows=len(rows),
        used=len(used),
        labels=len(compared.folds.classes),
        delta=task.spec.gate.delta,
        audit_rate=audit_rate,
        embedder=", ".join(one.type for one in task.spec.embedders),
        points=tuple(points),
        fields=_fields(task, used, compared, nearest) if task.spec.fields else (),
    )


def _fields(task: Task, rows: Rows, compared: Compared, alpha: float) -> tuple[FieldRow, ...]:
    found, settings, _ = _calibrated(task, rows, compared, alpha)
    return field_rows(found, certify(found.rows(), settings), settings)


def _calibrated(task: Task, rows: Rows, compared: Compared, alpha: float) -> tuple[Calibration, GateSettings, int]:
    """Return the calibration rows at alpha, how they are certified, and the surrogate that they are about."""
    choice, _ = select(task, compared, rows.calibrates, alpha)
    found = replace(calibration_of(compared, choice, rows), segment=segment_of(task, rows.texts))
    settings = replace(settings_of(task, found.mode, rivals=found.rivals), alpha=alpha)
    return found, settings, choice.candidate.parts[-1].surrogate


def _row_seconds(task: Task, rows: Rows) -> float:
    """Return the expected seconds that a row of a part of the learning curve takes, all its folds together."""
    return task.spec.fit.folds * dearest_fold(task, rows) / at_once(abreast=max(costs_of(task)) < HEAVY) / len(rows)


def _at(task: Task, rows: Rows, compared: Compared, alpha: float) -> tuple[Certificate, int]:
    """Return the certificate at alpha and the surrogate that it is about."""
    found, settings, surrogate = _calibrated(task, rows, compared, alpha)
    certificate = certify(found.rows(), settings)
    return replace(certificate, recalls=recalls_of(certificate, found)), surrogate


def _only(task: Task, surrogate: int) -> Task:
    """Return the task with one surrogate."""
    chosen = task.spec.surrogates[surrogate : surrogate + 1]
    return replace(task, spec=task.spec.model_copy(update={"surrogates": chosen}))


def _part(rows: Rows, size: int, seed: int) -> Rows:
    if size >= len(rows):
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).permutation(len(rows))[:size]))


def _point(
    found: Certificate, alpha: float, surrogate: str, audit_rate: float, curve: tuple[tuple[int, float], ...]
) -> ScanPoint:
    sizes, coverage = (np.array(column, float) for column in zip(*curve, strict=True))
    ahead = forecast(sizes, coverage)
    return ScanPoint(
        alpha=alpha,
        coverage=found.handled_share,
        agreement=found.agreements / found.n if found.certified else None,
        lower_bound=bound_of(found),
        reason=found.reason,
        rows_needed=found.rows_needed,
        surrogate=surrogate,
        calls_saved=found.handled_share * (1 - audit_rate),
        recalls=found.recalls,
        warning=recall_warning(found),
        curve=curve,
        twice=None if ahead is None else (ahead["coverage"], ahead["low"], ahead["high"]),
    )
