"""Labelled rows to a certified policy: cross-fit the candidates, choose one, refit it, one gate call."""

from dataclasses import dataclass, replace

import numpy as np

from tracer_serve.components import make_acceptor, make_surrogate
from tracer_serve.errors import FitError
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.choose import Candidate, cross_predicted, predicted_agreement
from tracer_serve.fit.compare import CandidateResult, compare
from tracer_serve.fit.crossfit import fit_surrogate, top_two
from tracer_serve.fit.folds import holdout
from tracer_serve.fit.rows import Progress, Rows, silent
from tracer_serve.gate.certify import certify
from tracer_serve.gate.scope import scope_threshold
from tracer_serve.load import Task
from tracer_serve.neighbours import NeighbourIndex
from tracer_serve.policy import Policy
from tracer_serve.protocols import Embedder
from tracer_serve.records import Certificate, Floats, Inputs, Ints, Vectors

CROSS_FIT_ROWS = 50_000
"""Above this many rows a held-out sample certifies as sharply as a cross-fit, and the theorem holds as stated."""
_STRICT_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit's outcome: the policy to serve, what it was certified on, and who else was considered.

    Parameters
    ----------
    vectors : the served embedder's vectors of the calibration rows, float32, shape (n, d)
    """

    policy: Policy
    calibration: Calibration
    vectors: Vectors
    candidates: tuple[CandidateResult, ...]

    @property
    def certificate(self) -> Certificate:
        """The gate's finding."""
        return self.policy.certificate


def fit_policy(task: Task, rows: Rows, embedder: Embedder, progress: Progress = silent) -> Fitted:
    """Fit, choose and certify a policy (gate.md, sections 2 and 3).

    Parameters
    ----------
    rows : labelled traces; every one trains, the fair ones calibrate
    embedder : the task's embedder; a trainable one is fitted here
    progress : called as the work goes on

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
    if task.spec.gate.mode == "strict" or len(rows) > CROSS_FIT_ROWS:
        return _fit_strict(task, rows, embedder, progress)
    return _fit_cross(task, rows, embedder, progress)


def _fit_cross(task: Task, rows: Rows, embedder: Embedder, progress: Progress) -> Fitted:
    """Certify on out-of-fold scores of all fair rows; the served model is refitted on all rows."""
    folds, choice, results = compare(task, rows, embedder, progress)
    policy, vectors = _finish(task, rows, embedder, choice.candidate)
    calibration = Calibration(
        row=np.arange(len(rows)),
        classes=folds.classes,
        top=choice.top,
        second=choice.second,
        truth=folds.codes,
        agreed=choice.agreed,
        score=choice.score,
        scope=choice.candidate.oof.scope,
        eligible=choice.eligible,
        fair=rows.calibrates,
    )
    predicted = cross_predicted(choice.score, choice.agreed, folds.fold)
    certificate = _certify(task, "cross_fit", calibration, predicted)
    progress("certifying", 1, 1)
    return Fitted(replace(policy, certificate=certificate), calibration, vectors, results)


def _fit_strict(task: Task, rows: Rows, embedder: Embedder, progress: Progress) -> Fitted:
    """Certify on a held-out fifth that neither trains nor chooses; the served model is fitted on the rest."""
    seed = task.spec.fit.seed
    held_out = np.flatnonzero(holdout(rows.texts, _STRICT_SHARE, seed) & rows.calibrates)
    if len(held_out) > CROSS_FIT_ROWS:
        held_out = np.sort(np.random.default_rng(seed).choice(held_out, CROSS_FIT_ROWS, replace=False))
    training = np.setdiff1d(np.arange(len(rows)), held_out)
    develop = rows.take(_sample(training, seed))
    _, choice, results = compare(task, develop, embedder, progress, refit_rows=len(training))
    policy, _ = _finish(task, rows.take(training), embedder, choice.candidate)
    test = rows.take(held_out)
    seen = policy.score(test.texts)
    top, second = top_two(seen.evidence.proba)
    classes = np.unique(np.concatenate([policy.classes, test.labels]))
    calibration = Calibration(
        row=held_out,
        classes=classes,
        top=np.searchsorted(classes, policy.classes[top]),
        second=np.searchsorted(classes, policy.classes[second]),
        truth=np.searchsorted(classes, test.labels),
        agreed=policy.classes[top] == test.labels,
        score=seen.score,
        scope=seen.scope,
        eligible=seen.scope >= policy.scope_threshold,
        fair=np.ones(len(held_out), bool),
    )
    predicted = predicted_agreement(choice.score, choice.agreed, seen.score)
    certificate = _certify(task, "strict", calibration, predicted)
    progress("certifying", 1, 1)
    vectors = seen.evidence.inputs.embeddings
    return Fitted(replace(policy, certificate=certificate), calibration, vectors, results)


def _finish(task: Task, rows: Rows, embedder: Embedder, chosen: Candidate) -> tuple[Policy, Vectors]:
    """Fit the chosen candidate on all training rows; its acceptor learns from out-of-fold rows only."""
    spec = task.spec
    if embedder.trainable:
        embedder = embedder.fit(rows.texts)
    inputs = Inputs(rows.texts, embedder.embed(rows.texts))
    surrogate = fit_surrogate(make_surrogate(task, chosen.surrogate), inputs, rows.labels, len(rows))
    acceptor = None
    if chosen.acceptor is not None:
        acceptor = make_acceptor(task, chosen.acceptor).fit(chosen.oof.features[chosen.acceptor], chosen.oof.agreed)
    codes = np.searchsorted(surrogate.classes_, rows.labels)
    policy = Policy(
        embedder=embedder,
        surrogate=surrogate,
        acceptor=acceptor,
        index=NeighbourIndex(seed=spec.fit.seed).fit(inputs.embeddings, codes),
        scope_threshold=scope_threshold(chosen.oof.scope, spec.gate.scope.keep),
        certificate=_UNCERTIFIED,
        names=(
            spec.surrogates[chosen.surrogate].type,
            None if chosen.acceptor is None else spec.acceptors[chosen.acceptor].type,
        ),
    )
    return policy, inputs.embeddings


def _certify(task: Task, mode: str, seen: Calibration, predicted: Floats) -> Certificate:
    gate, fair = task.spec.gate, seen.fair
    return certify(
        seen.score[fair],
        seen.agreed[fair],
        predicted[fair],
        alpha=gate.alpha,
        delta=gate.delta,
        mode=mode,
        min_coverage=gate.min_coverage,
        eligible=seen.eligible[fair],
    )


def _sample(rows: Ints, seed: int) -> Ints:
    """Return at most `CROSS_FIT_ROWS` of the rows, at random: enough to choose and to fit an acceptor."""
    if len(rows) <= CROSS_FIT_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, CROSS_FIT_ROWS, replace=False))


_UNCERTIFIED = Certificate(
    certified=False, reason="not_gated", alpha=0.0, delta=0.0, mode="", rows=0, n=0, agreements=0,
    lower_bound=0.0, threshold=float("inf"), coverage=0.0,
)  # fmt: skip
