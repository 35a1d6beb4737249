"""Labelled rows to a certified policy: cross-fit the candidates, choose one, refit it, one gate call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tracer_serve.certificate import Certificate
from tracer_serve.components import make_acceptor, make_embedders, make_surrogate
from tracer_serve.errors import FitError
from tracer_serve.finetune.sharing import sharing
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.candidate import Candidate, Part, Paths
from tracer_serve.fit.certificate import StageFacts, Tested, certified
from tracer_serve.fit.choose import Choice, predicted_agreement, prices
from tracer_serve.fit.compare import CandidateResult, Compared, compare, names_of, select
from tracer_serve.fit.crossfit import fit_surrogate, top_two
from tracer_serve.fit.diagnose import diagnose
from tracer_serve.fit.folds import burst_groups, holdout, lasting_holdout
from tracer_serve.fit.noise import TeacherNoise, duplicate_noise
from tracer_serve.fit.resume import Resume, can_resume
from tracer_serve.fit.rows import Progress, Rows, silent
from tracer_serve.gate.classes import class_floor
from tracer_serve.load import Task
from tracer_serve.neighbours import NeighbourIndex
from tracer_serve.policy import Policy
from tracer_serve.protocols import Acceptor, Embedder, Surrogate
from tracer_serve.records import Bools, Floats, Inputs, Ints, Labels, Vectors
from tracer_serve.stages import Stage
from tracer_serve.views import View

CROSS_FIT_ROWS = 50_000
"""Above this many rows a held-out sample certifies as sharply as a cross-fit, and the theorem holds as stated."""
_STRICT_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit's outcome: the policy to serve, what it was certified on, and who else was considered.

    Parameters
    ----------
    vectors : of the calibration rows by the last stage's embedder, float32, shape (n, d)
    trained : the rows of the fit that the served policy has learnt from, which its indexes count, shape (t,)
    """

    policy: Policy
    calibration: Calibration
    vectors: Vectors
    candidates: tuple[CandidateResult, ...]
    trained: Ints

    @property
    def certificate(self) -> Certificate:
        """The gate's finding."""
        return self.policy.certificate


@sharing()
def fit_policy(
    task: Task,
    rows: Rows,
    embedder: Embedder,
    progress: Progress = silent,
    *,
    index: int = 1,
    noise: TeacherNoise | None = None,
    earlier: Path | None = None,
    beside: Sequence[Embedder] | None = None,
) -> Fitted:
    """Fit, choose and certify a policy (gate.md, sections 2 and 3).

    Parameters
    ----------
    rows : labelled traces; every one trains, the fair ones calibrate
    embedder : the task's embedder; a trainable one is fitted here, as are those `beside`
    progress : called as the work goes on
    index : which certificate of the task this is, counted from 1; matters with ``gate.spend: series``
    noise : how far the teacher agrees with itself, where it was asked; for the diagnosis if nothing certifies
    earlier : folder of the policy that serves, from which a dear surrogate may go on (`fit.resume`)
    beside : embedders that surrogates name for themselves, the rest of `Spec.embedders`; made here if not given

    Raises
    ------
    FitError
        Where there are too few rows to split, or every candidate failed.
    """
    folds = task.spec.fit.folds
    if len(rows) < 2 * folds:
        raise FitError(
            f"{len(rows)} labelled traces are too few for {folds} folds: bring at least {2 * folds}"
            " (`tracer-serve import TASK.yaml traces.jsonl`)"
        )
    embedders = (embedder, *(make_embedders(task)[1:] if beside is None else beside))
    if task.spec.gate.mode == "strict" or len(rows) > CROSS_FIT_ROWS:
        fitted = _fit_strict(task, rows, embedders, progress, index, earlier=earlier)
    else:
        fitted = _fit_cross(task, rows, embedders, progress, index)
    progress("certifying", 1, 1)
    if fitted.certificate.certified:
        return fitted
    repeated, least = duplicate_noise(rows.texts, rows.labels), task.spec.gate.min_coverage
    why = diagnose(fitted.certificate, fitted.calibration, noise, repeated, least)
    return replace(fitted, policy=replace(fitted.policy, certificate=replace(fitted.certificate, diagnosis=why)))


def _fit_cross(task: Task, rows: Rows, embedders: Sequence[Embedder], progress: Progress, index: int) -> Fitted:
    """Certify on out-of-fold scores of all fair rows; the served model is refitted on all rows."""
    compared = compare(task, rows, embedders, progress)
    choice, results = select(task, compared, rows.calibrates)
    policy, vectors = _finish(task, rows, embedders, choice.candidate, compared.folds.classes)
    tested = tested_of(compared, choice, rows)
    certificate, calibration = certified(task, tested, _facts(task, choice.candidate), index)
    return Fitted(replace(policy, certificate=certificate), calibration, vectors, results, np.arange(len(rows)))


def tested_of(compared: Compared, choice: Choice, rows: Rows) -> Tested:
    """Return the rows of a cross-fit as the gate may see them."""
    folds, fair = compared.folds, rows.calibrates
    return Tested(
        "cross_fit",
        choice.paths,
        np.arange(len(rows)),
        fair,
        folds.classes,
        folds.codes,
        folds.group,
        rivals=compared.rivals,
    )


def _fit_strict(
    task: Task, rows: Rows, embedders: Sequence[Embedder], progress: Progress, index: int, *, earlier: Path | None
) -> Fitted:
    """Certify on a held-out fifth that neither trains nor chooses; the served model is fitted on the rest."""
    seed, resumes = task.spec.fit.seed, can_resume(task)
    apart = (lasting_holdout if resumes else holdout)(rows.texts, _STRICT_SHARE, seed)
    held_out = np.flatnonzero(apart & rows.calibrates)
    if len(held_out) > CROSS_FIT_ROWS:
        held_out = np.sort(np.random.default_rng(seed).choice(held_out, CROSS_FIT_ROWS, replace=False))
    group = burst_groups(rows.texts)
    # what does not calibrate trains, but no duplicate of what does; and a model that later ones go on from must not see
    # what may calibrate them
    training = np.flatnonzero(~apart if resumes else ~np.isin(group, group[held_out]))
    develop = rows.take(_sample(training, seed))
    compared = compare(task, develop, embedders, progress, refit_rows=len(training))
    choice, results = select(task, compared, develop.calibrates)
    test = rows.take(held_out)
    resume = Resume.of(earlier, rows.take(training), test) if resumes else None
    policy, _ = _finish(task, rows.take(training), embedders, choice.candidate, compared.folds.classes, resume=resume)
    vectors = policy.view.embed(test.texts)
    classes = np.unique(np.concatenate([policy.classes, test.labels]))
    paths = _paths(policy, test, vectors, classes)
    truth, fair = np.searchsorted(classes, test.labels), np.ones(len(held_out), bool)
    predicted = _predicted(choice, paths)
    tested = Tested("strict", paths, held_out, fair, classes, truth, group[held_out], predicted)
    certificate, calibration = certified(task, tested, _facts(task, choice.candidate), index)
    return Fitted(replace(policy, certificate=certificate), calibration, vectors, results, training)


def _paths(policy: Policy, test: Rows, vectors: Vectors, classes: Labels) -> Paths:
    """Return what the policy to serve says of rows that it has never seen; class indices into `classes`."""
    asked = policy.ask_all(test.texts, {policy.view: vectors})
    code = np.searchsorted(classes, policy.classes)
    best = [top_two(one.proba) for one in asked]
    top, second = (np.stack([code[pair[which]] for pair in best]) for which in (0, 1))
    return Paths(
        score=np.stack([one.score for one in asked]),
        agreed=classes[top] == test.labels,
        top=top,
        second=second,
        eligible=np.stack([s.in_scope(one) & s.open[one.top] for s, one in zip(policy.stages, asked, strict=True)]),
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


def _finish(
    task: Task,
    rows: Rows,
    embedders: Sequence[Embedder],
    chosen: Candidate,
    classes: Labels,
    *,
    resume: Resume | None = None,
) -> tuple[Policy, Vectors]:
    """Fit the chosen candidate on all training rows; its acceptors learn from out-of-fold rows only.

    Parameters
    ----------
    classes : what the candidate's class indices mean, shape (k,)
    """
    known, codes = np.unique(rows.labels, return_inverse=True)
    views: dict[int, tuple[View, Inputs]] = {}
    stages = []
    for part, scale, guard in zip(chosen.parts, chosen.scales, chosen.guards, strict=True):
        if part.oof.view not in views:
            views[part.oof.view] = _view(embedders[part.oof.view], rows, codes, task.spec.fit.seed)
        view, inputs = views[part.oof.view]
        surrogate, acceptor = _fit_part(task, part, inputs, rows.labels, resume)
        stages.append(
            Stage(
                view=view,
                surrogate=surrogate,
                acceptor=acceptor,
                names=_registered(task, part),
                open=_open(task, part, known, classes),
                scale=scale,
                scope_threshold=guard,
            )
        )
    return Policy(tuple(stages), _UNCERTIFIED), inputs.embeddings


def _view(embedder: Embedder, rows: Rows, codes: Ints, seed: int) -> tuple[View, Inputs]:
    """Fit an embedder and index the rows; return them as it sees them, too."""
    if embedder.trainable:
        embedder = embedder.fit(rows.texts)
    inputs = Inputs(rows.texts, embedder.embed(rows.texts))
    return View(embedder, NeighbourIndex(seed=seed).fit(inputs.embeddings, codes)), inputs


def _fit_part(
    task: Task, part: Part, inputs: Inputs, labels: Labels, resume: Resume | None
) -> tuple[Surrogate, Acceptor | None]:
    surrogate = make_surrogate(task, part.surrogate)
    if resume is not None:
        resume.tell(surrogate, task.spec.surrogates[part.surrogate].type)
    fit_surrogate(surrogate, inputs, labels, len(labels))
    acceptor = None
    if part.acceptor is not None and not part.flat:
        acceptor = make_acceptor(task, part.acceptor).fit(part.oof.features[part.acceptor], part.oof.agreed)
    return surrogate, acceptor


def _registered(task: Task, part: Part) -> tuple[str, str | None]:
    """Return the registry names, by which a stage is read back."""
    return task.spec.surrogates[part.surrogate].type, names_of(task, part)[1]


def _open(task: Task, part: Part, served: Labels, classes: Labels) -> Bools:
    """Return which of the served classes the class floor lets be answered; one that was never predicted is not."""
    gate = task.spec.gate
    if not gate.class_floor:
        return np.ones(len(served), bool)
    passes = class_floor(part.oof.top, part.oof.agreed, len(classes), floor=gate.class_floor, delta=gate.delta)
    found: Bools = np.isin(served, classes[passes])
    return found


def _facts(task: Task, chosen: Candidate) -> list[StageFacts]:
    took = prices([part.oof for part in chosen.parts])
    return [(*names_of(task, part), *each) for part, each in zip(chosen.parts, took, strict=True)]


def _sample(rows: Ints, seed: int) -> Ints:
    """Return at most `CROSS_FIT_ROWS` of the rows, at random: enough to choose and to fit an acceptor."""
    if len(rows) <= CROSS_FIT_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, CROSS_FIT_ROWS, replace=False))


_UNCERTIFIED = Certificate(
    certified=False, reason="not_gated", alpha=0.0, delta=0.0, mode="", rows=0, n=0, agreements=0,
    lower_bound=0.0, threshold=float("inf"), coverage=0.0,
)  # fmt: skip
