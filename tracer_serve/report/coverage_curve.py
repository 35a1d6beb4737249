"""The coverage-agreement curve: what each threshold would handle, and how often the teacher agrees there."""

from typing import Any

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.gate.binomial import lower_bounds
from tracer_serve.gate.fixed_sequence import ThresholdCounts, threshold_grid
from tracer_serve.report.calibration_view import CalibrationView


def curve_of(task: Task, seen: CalibrationView) -> dict[str, Any]:
    """Return coverage, agreement and its pointwise exact lower bound at each threshold, strictest first."""
    scores = np.where(seen.eligible, seen.score, np.nan)
    grid = threshold_grid(scores)
    tally = ThresholdCounts.of(scores, grid)
    n, k = tally.counts(np.ones(len(seen), bool)), tally.counts(seen.agreed)
    some = n > 0
    return {
        "threshold": grid[some],
        "n": n[some],
        "agreements": k[some],
        "coverage": n[some] / max(1, len(seen)),
        "agreement": k[some] / n[some],
        "lower_bound": lower_bounds(k[some], n[some], task.spec.gate.delta),
    }
