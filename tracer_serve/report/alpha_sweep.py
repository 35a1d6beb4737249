"""What a certificate at another alpha would say, and what it would save.

Each point is the gate's own finding on this version's rows, as if that alpha had been asked for from the start. To look
at many and take the best is no certificate: another alpha is written into the YAML and fitted.
In a cascade each row keeps the stage that answers it in this version, which understates a laxer alpha a little.
"""

from typing import Any

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.fit.folds import burst_groups
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.certify import certify
from tracer_serve.gate.per_class import certify_per_class
from tracer_serve.gate.risk_control import certify_overall
from tracer_serve.gate.wording import bound_of
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.types import Ints

_STEP = 0.005


def whatif_of(task: Task, seen: CalibrationView) -> dict[str, Any]:
    """Return coverage, bound and saved calls over alpha; the task's own alpha carries the certificate itself."""
    own = seen.certificate.alpha
    alphas = np.union1d(np.arange(max(0.5, own - 0.2), 0.9951, _STEP).round(4), [own])
    bursts = burst_groups(seen.texts)
    found = [seen.certificate if alpha == own else _at(task, seen, bursts, float(alpha)) for alpha in alphas]
    coverage = np.array([c.handled_share for c in found])
    return {
        "alpha": alphas,
        "certified": [c.certified for c in found],
        "reason": [c.reason for c in found],
        "coverage": coverage,
        "agreement": [c.agreements / c.n if c.certified else None for c in found],
        "lower_bound": [bound_of(c) for c in found],
        "teacher_calls_saved": coverage * (1.0 - task.spec.traces.audit_share),
        "own": int(np.flatnonzero(alphas == own)[0]),
    }


def _at(task: Task, seen: CalibrationView, bursts: Ints, alpha: float) -> Certificate:
    """Return what the gate would find, by the same promise and the same way of starting its walk."""
    found, gate = seen.certificate, task.spec.gate
    common: dict[str, Any] = {"alpha": alpha, "mode": found.mode, "min_coverage": gate.min_coverage}
    common |= {"eligible": seen.eligible, "groups": bursts}
    common["seed"] = task.spec.fit.seed
    if found.guarantee == "overall":
        return certify_overall(seen.score, seen.agreed, **common)
    common["delta"] = found.delta / found.rivals
    start = None if found.pilot else seen.predicted
    if found.per_class:
        answers = seen.classes[seen.top]
        return certify_per_class(seen.score, seen.agreed, start, answers=answers, **common)
    return certify(seen.score, seen.agreed, start, **common)
