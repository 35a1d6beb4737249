"""`gate.mode: strict`: certify on held-out rows that neither train nor choose."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.candidate import Paths
from tracer_serve.fit.comparison import compare, select
from tracer_serve.fit.cross_fit import top_two
from tracer_serve.fit.cross_score import predicted_agreement
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.final_fit import finish, stage_facts
from tracer_serve.fit.fit_progress import FINAL
from tracer_serve.fit.folds import lasting_holdout, newest_holdout
from tracer_serve.fit.gating import certified, segment_of, window_of
from tracer_serve.fit.progress import Timeline
from tracer_serve.fit.result import Fitted
from tracer_serve.fit.selection import Choice
from tracer_serve.fit.warm_start import Resume, can_resume
from tracer_serve.gate.settings import Ordinal
from tracer_serve.policy.policy import Policy
from tracer_serve.protocols import Embedder
from tracer_serve.types import Floats, Ints, Labels, Vectors

CROSS_FIT_ROWS = 50_000
"""Above this many rows a held-out sample certifies as sharply as a cross-fit, and the theorem holds as stated."""
_STRICT_SHARE = 0.2


def fit_strict(
    task: Task, rows: Rows, embedders: Sequence[Embedder], timeline: Timeline, ordinal: Ordinal, *, earlier: Path | None
) -> Fitted:
    """Certify on the newest fifth, which neither trains nor chooses; the served model is fitted on the rest."""
    seed, resumes = task.spec.fit.seed, can_resume(task)
    group = rows.group
    apart = (
        lasting_holdout(rows.texts, group, _STRICT_SHARE, seed)
        if resumes
        else newest_holdout(group, rows.calibrates, _STRICT_SHARE, seed, rows.arrived)
    )
    held_out = _sample(np.flatnonzero(apart & rows.calibrates), seed)
    if not len(held_out):
        raise FitError(
            "gate.mode: strict certifies on a fifth of the rows, and none of the"
            f" {int(rows.calibrates.sum()):,} that may calibrate fell into it: they are too few, or repeat few texts."
            " Serve on, then refit"
        )
    # what does not calibrate trains, but no duplicate of what does; and a model that later ones start from must not see
    # what may calibrate them
    training = np.flatnonzero(~apart if resumes else ~np.isin(group, group[held_out]))
    develop = rows.take(_sample(training, seed))
    compared = compare(task, develop, embedders, timeline, refit_rows=len(training))
    choice, results = select(task, compared, develop.calibrates)
    timeline.step(FINAL, FINAL)
    test = rows.take(held_out)
    # all that is apart, not what calibrates alone: a burst may bring a row here whose like an earlier model has seen
    resume = Resume.of(earlier, rows.take(training), rows.take(np.flatnonzero(apart))) if resumes else None
    policy, _ = finish(task, rows.take(training), embedders, choice.candidate, compared.folds.classes, resume=resume)
    vectors = policy.view.embed(test.texts)
    timeline.step(FINAL, FINAL, 1)
    classes = np.unique(np.concatenate([policy.classes, test.labels]))
    paths = _paths(policy, test, vectors, classes)
    truth, fair = np.searchsorted(classes, test.labels), np.ones(len(held_out), bool)
    predicted = _predicted(choice, paths)
    calibration = Calibration("strict", paths, held_out, fair, classes, truth, group[held_out], predicted)
    calibration = replace(calibration, segment=segment_of(task, test.texts))
    calibration = calibration.current(rows.arrived, window_of(task))
    certificate = certified(task, calibration, stage_facts(task, choice.candidate), ordinal)
    return Fitted(replace(policy, certificate=certificate), calibration, vectors, results, training)


def _paths(policy: Policy, test: Rows, vectors: Vectors, classes: Labels) -> Paths:
    """Return what the policy to serve says of rows that it has never seen; class indices into `classes`."""
    asked = policy.ask_all(test.texts, {policy.view: vectors})
    code = np.searchsorted(classes, policy.classes)
    best = [top_two(one.proba) for one in asked]
    pairs = [*zip(policy.stages, asked, strict=True)]
    vetoed = np.stack([stage.vetoed(one.proba, one.top) for stage, one in pairs])
    top, second = (np.stack([code[pair[which]] for pair in best]) for which in (0, 1))
    return Paths(
        score=np.stack([one.score for one in asked]),
        agreed=classes[top] == test.labels,
        top=top,
        second=second,
        eligible=np.stack([(one.scope >= stage.scope_threshold) & stage.open[one.top] for stage, one in pairs])
        & ~(vetoed | policy.too_long(test.texts)),
        vetoed=vetoed,
        scope=np.stack([one.scope for one in asked]),
    )


def _predicted(choice: Choice, paths: Paths) -> Floats:
    """Predict each stage's agreement from the development rows: none of the rows of the certificate is among them."""
    known = choice.paths
    offset = len(known.score) - len(paths.score)
    return np.stack(
        [
            predicted_agreement(known.score[offset + s], known.agreed[offset + s], score)
            for s, score in enumerate(paths.score)
        ]
    )


def _sample(rows: Ints, seed: int) -> Ints:
    """Return at most `CROSS_FIT_ROWS` of the rows, at random: enough to choose, to fit an acceptor, and to certify."""
    if len(rows) <= CROSS_FIT_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, CROSS_FIT_ROWS, replace=False))
