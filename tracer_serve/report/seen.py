"""The calibration rows as every section of the report sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracer_serve.fit.pipeline import Fitted
from tracer_serve.records import Bools, Certificate, Floats, Ints, Labels, Text, Vectors
from tracer_serve.report.plain import joined


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The n calibration rows that entered the certificate, and what the policy decides on each.

    Every number of a report is computed on these: out-of-fold or held out, never as trained on.

    Parameters
    ----------
    texts : n inputs
    vectors : their embeddings, shape (n, d)
    classes : the labels that `top`, `second` and `truth` index
    top, second : the surrogate's two most probable labels, shape (n,)
    truth : the teacher's label, shape (n,)
    agreed : whether `top` is `truth`
    score : the acceptor's score
    scope : the scope guard's score
    eligible : rows that the guards let pass
    handled : rows that the certificate lets the surrogate answer
    """

    certificate: Certificate
    scope_threshold: float
    texts: Sequence[Text]
    vectors: Vectors
    classes: Labels
    top: Ints
    second: Ints
    truth: Ints
    agreed: Bools
    score: Floats
    scope: Floats
    eligible: Bools
    handled: Bools

    def __len__(self) -> int:
        return len(self.texts)

    def shown(self, i: int) -> str:
        """Return a row's text as the report shows it."""
        return joined(self.texts[i])

    @classmethod
    def of(cls, fitted: Fitted, texts: Sequence[Text]) -> "Seen":
        """Take the rows that entered the certificate; `texts[i]` belongs to calibration row i."""
        calibration, rows = fitted.calibration, np.flatnonzero(fitted.calibration.fair)
        certificate = fitted.certificate
        score, top = calibration.score[rows], calibration.top[rows]
        threshold = _thresholds(certificate, calibration.classes)[top]
        return cls(
            certificate=certificate,
            scope_threshold=fitted.policy.scope_threshold,
            texts=[texts[int(i)] for i in rows],
            vectors=fitted.vectors[rows],
            classes=calibration.classes,
            top=top,
            second=calibration.second[rows],
            truth=calibration.truth[rows],
            agreed=calibration.agreed[rows],
            score=score,
            scope=calibration.scope[rows],
            eligible=calibration.eligible[rows],
            handled=calibration.eligible[rows] & np.isfinite(score) & (score >= threshold) & certificate.certified,
        )


def _thresholds(certificate: Certificate, classes: Labels) -> Floats:
    """Return the least score that is handled, per predicted class, shape (k,)."""
    if not certificate.per_class:
        return np.full(len(classes), certificate.threshold)
    own = {row.label: row.threshold for row in certificate.classes if row.certified}
    return np.array([own.get(str(label), np.inf) for label in classes])
