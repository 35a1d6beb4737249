"""Calibration rows with the policy's decisions, the input of every section of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.config.load import Task
from tracer_serve.fit.cross_score import cross_predicted
from tracer_serve.fit.folds import random_folds
from tracer_serve.fit.groups import duplicate_groups
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certificate import Certificate
from tracer_serve.policy.decision import CERTIFIED, certificate_reasons
from tracer_serve.report.json_values import joined
from tracer_serve.types import Bools, Floats, Ints, Labels, Text, Vectors

NEAREST = 24
"""Neighbours found per row, including the row itself and its duplicates."""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationView:
    """The n calibration rows behind the certificate, and the policy's decision on each.

    Every number of a report is computed on these rows, out-of-fold or held out.

    Parameters
    ----------
    texts : n inputs
    vectors : their embeddings, of a cascade the last stage's, shape (n, d)
    classes : the labels that `top`, `second` and `truth` index
    top, second : the surrogate's two most probable labels, shape (n,)
    truth : the teacher's label, shape (n,)
    agreed : whether `top` is `truth`
    score : the acceptor's score
    eligible : rows that pass the guards
    reason : why the surrogate answers a row or not, as in `policy.decision.certificate_reasons`, shape (n,)
    handled : rows that the surrogate answers under the certificate
    predicted : P(agree) of a row's score, estimated from other rows
    group : near-duplicates share a number, shape (n,)
    index : finds the nearest of these rows (of a sample of at most 20,000)
    """

    certificate: Certificate
    texts: Sequence[Text]
    vectors: Vectors
    classes: Labels
    top: Ints
    second: Ints
    truth: Ints
    agreed: Bools
    score: Floats
    eligible: Bools
    reason: Labels
    handled: Bools
    predicted: Floats
    group: Ints
    index: NeighbourIndex

    def __len__(self) -> int:
        return len(self.texts)

    def shown(self, i: int) -> str:
        """Return a row's text as the report shows it."""
        return joined(self.texts[i])

    @classmethod
    def of(cls, task: Task, fitted: Fitted, texts: Sequence[Text]) -> "CalibrationView":
        """Select the rows behind the certificate; `texts[i]` belongs to calibration row i."""
        fit, group = task.spec.fit, np.unique(fitted.calibration.group, return_inverse=True)[1]
        folds = random_folds(group, fit.folds, fit.seed)  # the same folds as in the fit
        calibration, rows = fitted.calibration, np.flatnonzero(fitted.calibration.fair)
        certificate = fitted.certificate
        seen = fitted.answered.take(rows)
        guards = np.array([stage.scope_threshold for stage in fitted.policy.stages])[seen.stage]
        in_scope, eligible = seen.scope >= guards, seen.eligible
        shown = [texts[int(i)] for i in rows]
        too_long = fitted.policy.too_long(shown)[seen.stage, np.arange(len(shown))]
        reason = certificate_reasons(
            certificate,
            calibration.classes,
            score=seen.score,
            top=seen.top,
            too_long=too_long,
            in_scope=in_scope | eligible,
            open_=eligible | seen.vetoed,
            vetoed=seen.vetoed,
            segment=None if calibration.segment is None else calibration.segment[rows],
        )
        vectors = fitted.vectors[rows]
        return cls(
            certificate=certificate,
            texts=shown,
            vectors=vectors,
            classes=calibration.classes,
            top=seen.top,
            second=seen.second,
            truth=calibration.truth[rows],
            agreed=seen.agreed,
            score=seen.score,
            eligible=eligible,
            reason=reason,
            handled=reason == CERTIFIED,
            predicted=cross_predicted(fitted.answered.score, fitted.answered.agreed, folds)[rows],
            group=duplicate_groups(shown),
            index=NeighbourIndex(k=NEAREST).fit(vectors, np.zeros(len(rows), np.int64)),
        )
