"""Map of the traffic: one point per row, with its text, decision, labels and score."""

from typing import Any

import numpy as np

from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.embedding_layout import layout
from tracer_serve.report.json_values import joined

MOST = 5_000
"""Maximum number of points, a uniform sample of more rows."""
_TEXT = 140


def atlas_of(seen: CalibrationView, seed: int = 0) -> dict[str, Any]:
    """Return the points as columns; labels index ``labels``, ``percentile`` is the share of rows with a lower score."""
    rows = np.arange(len(seen))
    if len(seen) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    place = layout(seen.vectors[rows], seed)
    score = np.nan_to_num(seen.score, nan=-np.inf, posinf=np.inf, neginf=-np.inf)  # a missing score ranks lowest
    below = np.searchsorted(np.sort(score), score[rows], side="left") / max(1, len(seen))
    return {
        "rows": len(seen),
        "method": "neighbour layout: near rows attract, random rows repel; distances between far groups mean nothing",
        "labels": seen.classes,
        "x": place[:, 0].round(3),
        "y": place[:, 1].round(3),
        "text": [joined(seen.texts[i], _TEXT) for i in rows.tolist()],
        "teacher": seen.truth[rows],
        "surrogate": seen.top[rows],
        "handled": seen.handled[rows].astype(int),
        "percentile": below.round(3),
    }
