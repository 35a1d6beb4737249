"""Examples of handled and deferred calibration rows, each with its reason."""

from typing import Any

import numpy as np

from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.reason_texts import REASONS


def examples_of(seen: CalibrationView, each: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """Return up to `each` random handled and deferred rows with their reasons."""
    rng = np.random.default_rng(seed)
    chosen = []
    for part in (seen.handled, ~seen.handled):
        rows = np.flatnonzero(part)
        chosen += sorted(rng.choice(rows, min(each, len(rows)), replace=False).tolist())
    return [row_of(seen, i) | {"reason": seen.reason[i], "why": REASONS[str(seen.reason[i])]} for i in chosen]


def row_of(seen: CalibrationView, i: int) -> dict[str, Any]:
    """Return one calibration row as the report shows it."""
    return {
        "text": seen.shown(i),
        "row": i,
        "teacher": seen.classes[seen.truth[i]],
        "surrogate": seen.classes[seen.top[i]],
        "runner_up": seen.classes[seen.second[i]],
        "score": seen.score[i],
        "decision": "handled" if seen.handled[i] else "deferred",
        "agreed": seen.agreed[i],
    }
