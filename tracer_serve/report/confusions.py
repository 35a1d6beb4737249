"""Confusion flows: pairs of labels that teacher and surrogate confuse."""

from typing import Any

import numpy as np

from tracer_serve.report.calibration_view import CalibrationView


def flows_of(seen: CalibrationView, limit: int = 60) -> dict[str, Any]:
    """Return the flows from the teacher's label to the surrogate's where the two differ, largest first.

    ``handled`` rows are errors: the user gets the surrogate's label. ``deferred`` rows are answered by the teacher.
    """
    wrong = np.flatnonzero(~seen.agreed)
    size = len(seen.classes)
    kinds, inverse = np.unique(seen.truth[wrong] * size + seen.top[wrong], return_inverse=True)
    handled = np.bincount(inverse, seen.handled[wrong], len(kinds)).astype(int)
    total = np.bincount(inverse, minlength=len(kinds))
    order = np.lexsort((kinds, -total, -handled))
    kept = order[np.isin(order, np.lexsort((kinds, -total))[:limit])]
    return {
        "disagreements": len(wrong),
        "listed": int(total[kept].sum()),
        "flows": [
            {
                "teacher": seen.classes[kinds[i] // size],
                "surrogate": seen.classes[kinds[i] % size],
                "rows": total[i],
                "handled": handled[i],
                "deferred": total[i] - handled[i],
            }
            for i in kept
        ],
    }
