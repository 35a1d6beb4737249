"""Contrastive pairs: the nearest handled and deferred rows of one label, so that the difference can be read."""

from typing import Any

import numpy as np

from tracer_serve.components.neighbour_index import unit
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.reasons import row_of
from tracer_serve.types import Ints

_PER_LABEL = 2
_SIDE = 2000  # rows of one label and outcome that are compared: 2,000 x 2,000 cosines


def contrast_of(seen: CalibrationView, limit: int = 30) -> list[dict[str, Any]]:
    """Return the pairs with the largest cosine, at most two per label, no row twice."""
    found = []
    for label in np.unique(seen.truth):
        mine = seen.truth == label
        handled, deferred = np.flatnonzero(mine & seen.handled)[:_SIDE], np.flatnonzero(mine & ~seen.handled)[:_SIDE]
        found += _nearest(seen, handled, deferred)
    found.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {
            "label": seen.classes[seen.truth[a]],
            "cosine": cosine,
            "handled": row_of(seen, a),
            "deferred": row_of(seen, b),
        }
        for cosine, a, b in found[:limit]
    ]


def _nearest(seen: CalibrationView, handled: Ints, deferred: Ints) -> list[tuple[float, int, int]]:
    if not len(handled) or not len(deferred):
        return []
    cosine = unit(seen.vectors[handled]) @ unit(seen.vectors[deferred]).T
    pairs = []
    for _ in range(min(_PER_LABEL, *cosine.shape)):
        a, b = np.unravel_index(int(cosine.argmax()), cosine.shape)
        pairs.append((float(cosine[a, b]), int(handled[a]), int(deferred[b])))
        cosine[a, :], cosine[:, b] = -np.inf, -np.inf
    return pairs
