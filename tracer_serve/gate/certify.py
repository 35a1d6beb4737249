"""Certify a calibration set: the gate's entry point (gate.md, sections 1 to 3)."""

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.marginal import certify_marginal
from tracer_serve.gate.per_class import certify_per_class
from tracer_serve.gate.risk_control import certify_overall
from tracer_serve.gate.segments import certify_segments
from tracer_serve.gate.settings import CalibrationRows, GateSettings


def certify(rows: CalibrationRows, settings: GateSettings) -> Certificate:
    """Return the certificate of a calibration set, by the guarantee that the settings name.

    Examples
    --------
    >>> import numpy as np
    >>> rows = CalibrationRows(np.zeros(59), np.ones(59, bool), np.ones(59))
    >>> found = certify(rows, GateSettings(alpha=0.95, delta=0.05))
    >>> found.certified, found.threshold, round(found.lower_bound, 4)
    (True, -inf, 0.9505)
    """
    if settings.guarantee == "overall":
        return certify_overall(rows, settings)
    if settings.segments:
        return certify_segments(rows, settings)
    if settings.per_class:
        return certify_per_class(rows, settings)
    return certify_marginal(rows, settings)
