"""Fit the chosen candidate on all training rows: the policy to serve, not certified yet."""

from collections.abc import Sequence

import numpy as np

from tracer_serve.components.factory import make_acceptor, make_surrogate
from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.config.load import Task
from tracer_serve.fit.candidate import Candidate, CandidateStage
from tracer_serve.fit.comparison import names_of
from tracer_serve.fit.cross_fit import class_codes, fit_surrogate
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.fold_data import fit_embedder
from tracer_serve.fit.gating import StageFacts
from tracer_serve.fit.risk_rank import risk_limit, risk_references
from tracer_serve.fit.selection import prices
from tracer_serve.fit.warm_start import Resume
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.per_class import class_floor
from tracer_serve.policy.input_range import InputRange, reads_texts
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.stage import Stage
from tracer_serve.policy.view import View
from tracer_serve.protocols import Acceptor, Embedder, Surrogate
from tracer_serve.types import Bools, Floats, Inputs, Ints, Labels, Vectors

_UNCERTIFIED = Certificate(
    certified=False, reason="not_gated", alpha=0.0, delta=0.0, mode="", rows=0, n=0, agreements=0,
    lower_bound=0.0, threshold=float("inf"), coverage=0.0,
)  # fmt: skip


def finish(
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
                limits=_limits(task, part, surrogate, inputs, rows.labels),
                scale=scale,
                scope_threshold=guard,
            )
        )
    known_range = InputRange(task.spec.fit.seed)
    if reads_texts(embedders[0]):
        known_range.fit(rows.texts)
    return Policy(tuple(stages), _UNCERTIFIED, known_range), inputs.embeddings


def _view(embedder: Embedder, rows: Rows, codes: Ints, seed: int) -> tuple[View, Inputs]:
    """Fit an embedder and index the rows; return their vectors too."""
    if embedder.trainable:
        embedder = fit_embedder(embedder, rows)
    inputs = Inputs(rows.texts, embedder.embed(rows.texts))
    return View(embedder, NeighbourIndex(seed=seed).fit(inputs.embeddings, codes)), inputs


def _fit_part(
    task: Task, part: CandidateStage, inputs: Inputs, labels: Labels, resume: Resume | None
) -> tuple[Surrogate, Acceptor | None]:
    surrogate = make_surrogate(task, part.surrogate)
    if resume is not None:
        resume.tell(surrogate, task.spec.surrogates[part.surrogate].type)
    fit_surrogate(surrogate, inputs, labels, len(labels))
    acceptor = None
    if part.acceptor is not None and not part.flat:
        acceptor = make_acceptor(task, part.acceptor).fit(part.oof.features[part.acceptor], part.oof.agreed)
    return surrogate, acceptor


def _registered(task: Task, part: CandidateStage) -> tuple[str, str | None]:
    """Return the registry names, by which a stage is read back."""
    return task.spec.surrogates[part.surrogate].type, names_of(task, part)[1]


def _open(task: Task, part: CandidateStage, served: Labels, classes: Labels) -> Bools:
    """Return which served classes the class floor allows; one that was never predicted is not allowed."""
    gate = task.spec.gate
    if not gate.class_floor:
        return np.ones(len(served), bool)
    passes = class_floor(part.oof.top, part.oof.agreed, len(classes), floor=gate.class_floor, delta=gate.delta)
    found: Bools = np.isin(served, classes[passes])
    return found


def _limits(task: Task, part: CandidateStage, surrogate: Surrogate, inputs: Inputs, labels: Labels) -> Floats:
    """Return the probability of each served class above which no other label is answered, shape (k,)."""
    limits, protect = np.full(len(surrogate.classes_), np.inf), [*task.spec.gate.protect]
    references = risk_references(surrogate, inputs, labels, protect)
    for code, reference, rank in zip(class_codes(surrogate.classes_, protect), references, part.limits, strict=True):
        if code >= 0:
            limits[code] = risk_limit(reference, rank)
    return limits


def stage_facts(task: Task, chosen: Candidate) -> list[StageFacts]:
    """Return what the certificate says of a candidate's stages beside how they fare."""
    took = prices([part.oof for part in chosen.parts])
    return [(*names_of(task, part), *each) for part, each in zip(chosen.parts, took, strict=True)]
