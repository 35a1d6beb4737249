"""Call the gate, and add facts on classes and stages to the certificate."""

from collections.abc import Sequence
from dataclasses import replace

from tracer_serve.config.load import Task
from tracer_serve.fit.calibration import Answered, Calibration
from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.certificate import Certificate, LabelRecall, StageRow
from tracer_serve.gate.certify import certify
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.per_class import with_class_table
from tracer_serve.gate.recall import recall_table
from tracer_serve.gate.segments import segments_of, thresholds_of
from tracer_serve.gate.settings import GateSettings, Mode, Ordinal
from tracer_serve.types import Bools, Labels, Text

StageFacts = tuple[str, str | None, float, float]
"""A stage's surrogate, acceptor, and milliseconds per row of predicting and of embedding, as in `StageRow`."""

FIRST = Ordinal()


def settings_of(task: Task, mode: Mode, *, ordinal: Ordinal = FIRST, rivals: int = 1) -> GateSettings:
    """Return the gate settings of the spec.

    Parameters
    ----------
    ordinal : which certificate of the task this is
    rivals : surrogates that were compared on the calibration rows
    """
    gate = task.spec.gate
    return GateSettings(
        alpha=gate.alpha,
        delta=gate.delta,
        mode=mode,
        min_coverage=gate.min_coverage,
        guarantee=gate.guarantee,
        per_class=gate.per_class,
        protect=gate.protect,
        segments=gate.segments,
        spend=gate.spend,
        index=ordinal.index,
        attempt=ordinal.attempt,
        rivals=rivals,
        seed=task.spec.fit.seed,
    )


def window_of(task: Task) -> int:
    """Return how many rows a half of the calibration window has at least: enough to certify some of them."""
    return 4 * n_min(task.spec.gate.alpha, task.spec.gate.delta)


def certified(task: Task, rows: Calibration, stages: Sequence[StageFacts], ordinal: Ordinal) -> Certificate:
    """Certify the rows, and add facts on classes and stages.

    Parameters
    ----------
    stages : of the policy that will be served
    """
    found = certify(rows.rows(), settings_of(task, rows.mode, ordinal=ordinal, rivals=rows.rivals))
    seen = rows.answered(found).take(rows.fair)
    if not (found.per_class or found.segments) and found.guarantee == "probability":
        found = with_class_table(found, rows.classes[seen.top], seen.score, seen.agreed, seen.eligible)
    table = _stages(handled_rows(found, rows, seen), seen, stages)
    floor = task.spec.gate.class_floor or 0.0
    return replace(
        found,
        class_floor=floor,
        stages=table,
        outdated=rows.outdated,
        recalls=recalls_of(found, rows),
        label_changes=task.spec.label_changes.sentences(),
    )


def segment_of(task: Task, texts: Sequence[Text]) -> Labels | None:
    """Return the segment of each text; None if the spec has no segments."""
    patterns = task.spec.gate.segments
    return segments_of(texts, patterns) if patterns else None


def recalls_of(found: Certificate, rows: Calibration) -> tuple[LabelRecall, ...]:
    """Return the recall per teacher label under a certificate, over the fair rows."""
    seen = rows.answered(found).take(rows.fair)
    return recall_table(rows.classes, rows.truth[rows.fair], handled_rows(found, rows, seen), seen.agreed)


def handled_rows(found: Certificate, rows: Calibration, seen: Answered) -> Bools:
    """Return which of the fair rows the surrogate answers under a certificate, shape (n,)."""
    segment = None if rows.segment is None else rows.segment[rows.fair]
    return seen.eligible & accepts(seen.score, thresholds_of(found, rows.classes, seen.top, segment))


def _stages(handled: Bools, seen: Answered, stages: Sequence[StageFacts]) -> tuple[StageRow, ...]:
    """Return what each stage contributes."""
    total = reached = len(handled)
    table = []
    for number, (surrogate, acceptor, *took) in enumerate(stages):
        mine = handled & (seen.stage == number)
        n, k = int(mine.sum()), int((mine & seen.agreed).sum())
        table.append(StageRow(surrogate, acceptor, n, k, n / max(1, total), reached / max(1, total), *took))
        reached -= n
    return tuple(table)
