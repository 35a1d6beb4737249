"""CPU cost per request of a cascade, and of its last stage alone."""

from typing import Any

from tracer_serve.gate.certificate import Certificate
from tracer_serve.policy.stage import name_of


def names_of(found: Certificate) -> tuple[str, str | None]:
    """Return the names of the surrogates and of the acceptors."""
    return name_of([(row.surrogate, row.acceptor) for row in found.stages])


def cascade_costs_of(found: Certificate) -> dict[str, Any] | None:
    """Return milliseconds per request of the cascade and of its last stage alone; None for a single stage.

    Examples
    --------
    >>> import numpy as np
    >>> from dataclasses import replace
    >>> from tracer_serve.gate.certify import certify
    >>> from tracer_serve.gate.certificate import StageRow
    >>> from tracer_serve.gate.settings import CalibrationRows, GateSettings
    >>> stages = (StageRow("a", None, 80, 80, 0.8, 1.0, 0.25, 0.25), StageRow("b", None, 10, 9, 0.1, 0.2, 1.0, 4.0))
    >>> found = certify(CalibrationRows(np.zeros(59), np.ones(59, bool)), GateSettings(alpha=0.95, delta=0.05))
    >>> cascade_costs_of(replace(found, stages=stages))
    {'cascade_ms': 1.5, 'alone_ms': 5.0}
    """
    if len(found.stages) < 2:  # noqa: PLR2004  # no cascade
        return None
    last = found.stages[-1]
    # the last stage may reuse an earlier stage's embedding; alone it would have to compute it
    embedding = last.embed_ms or found.stages[0].embed_ms
    return {
        "cascade_ms": sum(row.asked * (row.cpu_ms + row.embed_ms) for row in found.stages),
        "alone_ms": last.cpu_ms + embedding,
    }
