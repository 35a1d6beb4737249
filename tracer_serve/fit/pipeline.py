"""From labelled rows to a certified policy: cross-fit the candidates, choose one, refit it, call the gate once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tracer_serve.components.factory import make_embedders, make_surrogate
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.comparison import Compared, compare, select
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.diagnosis import diagnose
from tracer_serve.fit.final_fit import finish, stage_facts
from tracer_serve.fit.fit_progress import CERTIFYING, FINAL, plan_final
from tracer_serve.fit.gating import FIRST, certified, segment_of, window_of
from tracer_serve.fit.holdout import CROSS_FIT_ROWS, fit_strict
from tracer_serve.fit.progress import Progress, Timeline, silent
from tracer_serve.fit.result import Fitted
from tracer_serve.fit.selection import Choice
from tracer_serve.fit.teacher_noise import TeacherNoise, duplicate_noise
from tracer_serve.gate.settings import Ordinal
from tracer_serve.protocols import Embedder


def fit_policy(
    task: Task,
    rows: Rows,
    embedder: Embedder,
    progress: Progress = silent,
    *,
    ordinal: Ordinal = FIRST,
    noise: TeacherNoise | None = None,
    earlier: Path | None = None,
    beside: Sequence[Embedder] | None = None,
) -> Fitted:
    """Fit, choose and certify a policy (gate.md, sections 2 and 3).

    Parameters
    ----------
    rows : labelled traces; every one trains, the fair ones calibrate
    embedder : the task's embedder; a trainable one is fitted here, as are those `beside`
    progress : called with the progress of the work
    ordinal : which certificate of the task this is; matters with ``gate.spend: series`` and after an alarm
    noise : how far the teacher agrees with itself, where it was asked; for the diagnosis if nothing certifies
    earlier : folder of the policy that serves, from which an expensive surrogate may continue (`fit.resume`)
    beside : embedders that surrogates name for themselves, the rest of `Spec.embedders`; made here if not given

    Raises
    ------
    FitError
        If there are too few rows to split, or every candidate failed.
    """
    folds, rows = task.spec.fit.folds, rows.grouped(task.spec.gate.group_by)
    if len(rows) < 2 * folds:
        raise FitError(
            f"{len(rows)} labelled traces are too few for {folds} folds: bring at least {2 * folds}"
            " (`tracer-serve import TASK.yaml traces.jsonl`)"
        )
    timeline = Timeline.of(progress)
    plan_final(timeline, task, rows)
    embedders = (embedder, *(make_embedders(task)[1:] if beside is None else beside))
    if task.spec.gate.mode == "strict" or len(rows) > CROSS_FIT_ROWS or not all_stable(task):
        fitted = fit_strict(task, rows, embedders, timeline, ordinal, earlier=earlier)
    else:
        fitted = _fit_cross(task, rows, embedders, timeline, ordinal)
    timeline.step(CERTIFYING, CERTIFYING, 1)
    if fitted.certificate.certified:
        return fitted
    repeated, least = duplicate_noise(rows.texts, rows.labels), task.spec.gate.min_coverage
    why = diagnose(fitted.certificate, fitted.answered.take(fitted.calibration.fair), noise, repeated, least)
    return replace(fitted, policy=replace(fitted.policy, certificate=replace(fitted.certificate, diagnosis=why)))


def all_stable(task: Task) -> bool:
    """Return whether models of folds may represent the refit that serves: every surrogate declares itself stable."""
    made = (make_surrogate(task, number) for number in range(len(task.spec.surrogates)))
    return all(getattr(surrogate, "stable", False) for surrogate in made)


def _fit_cross(task: Task, rows: Rows, embedders: Sequence[Embedder], timeline: Timeline, ordinal: Ordinal) -> Fitted:
    """Certify on out-of-fold scores of all fair rows; the served model is refitted on all rows."""
    compared = compare(task, rows, embedders, timeline)
    choice, results = select(task, compared, rows.calibrates)
    timeline.step(FINAL, FINAL)
    policy, vectors = finish(task, rows, embedders, choice.candidate, compared.folds.classes)
    timeline.step(FINAL, FINAL, 1)
    calibration = replace(calibration_of(compared, choice, rows), segment=segment_of(task, rows.texts))
    calibration = calibration.current(rows.arrived, window_of(task))
    certificate = certified(task, calibration, stage_facts(task, choice.candidate), ordinal)
    policy, trained = replace(policy, certificate=certificate), np.arange(len(rows))
    return Fitted(policy, calibration, vectors, results, trained, choice.candidate.parts[-1].oof.votes)


def calibration_of(compared: Compared, choice: Choice, rows: Rows) -> Calibration:
    """Return the rows of a cross-fit as the gate may see them."""
    folds = compared.folds
    return Calibration(
        mode="cross_fit",
        paths=choice.paths,
        row=np.arange(len(rows)),
        fair=rows.calibrates,
        classes=folds.classes,
        truth=folds.codes,
        group=folds.group,
        rivals=compared.rivals,
        spare=len(choice.paths.score) - len(choice.candidate.parts),
    )
