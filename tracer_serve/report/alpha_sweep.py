"""What-if over alpha: what the gate would certify at other alphas, and what that would save.

Each point is the gate's result on this version's calibration set, as if that alpha had been set from the start. The
best of many points is not a certificate: write the other alpha into the YAML and refit.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.fit.gating import recalls_of, settings_of
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certify import certify
from tracer_serve.gate.recall import low_recalls
from tracer_serve.gate.settings import GateSettings, Ordinal
from tracer_serve.gate.wording import bound_of

_STEP = 0.005


def asked_of(task: Task, fitted: Fitted) -> GateSettings:
    """Return the settings with which a version was certified."""
    ordinal = Ordinal(fitted.certificate.index, fitted.certificate.attempt)
    return settings_of(task, fitted.calibration.mode, ordinal=ordinal, rivals=fitted.calibration.rivals)


def whatif_of(task: Task, fitted: Fitted) -> dict[str, Any]:
    """Return coverage, bound and saved calls over alpha; the task's own alpha carries the certificate itself."""
    own, rows = fitted.certificate.alpha, fitted.calibration.rows()
    alphas = np.union1d(np.arange(max(0.5, own - 0.2), 0.9951, _STEP).round(4), [own])
    asked = asked_of(task, fitted)
    found = [
        fitted.certificate if alpha == own else certify(rows, replace(asked, alpha=float(alpha))) for alpha in alphas
    ]
    found = [replace(one, recalls=recalls_of(one, fitted.calibration)) for one in found]
    coverage = np.array([c.handled_share for c in found])
    return {
        "alpha": alphas,
        "certified": [c.certified for c in found],
        "reason": [c.reason for c in found],
        "coverage": coverage,
        "agreement": [c.agreements / c.n if c.certified else None for c in found],
        "lower_bound": [bound_of(c) for c in found],
        "lowest_recall": [c.recalls[0].recall if c.certified else None for c in found],
        "lowest_label": [c.recalls[0].label if c.certified else None for c in found],
        "low_recalls": [[row.label for row in low_recalls(c)] for c in found],
        "teacher_calls_saved": coverage * (1.0 - task.spec.traces.audit_share),
        "own": int(np.flatnonzero(alphas == own)[0]),
    }
