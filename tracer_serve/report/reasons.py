"""Why rows are deferred: the policy's reason, and what stands behind a low score."""

from typing import Any

import numpy as np

from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.reason_texts import REASONS
from tracer_serve.types import Bools, Labels


def reason_codes(seen: CalibrationView) -> Labels:
    """Return the policy's reason per row, shape (n,); a code of `REASONS`."""
    no_class = np.zeros(len(seen), bool) | _class_uncertified(seen)
    found = np.select(
        [
            seen.handled,
            np.full(len(seen), not seen.certificate.certified),
            ~seen.eligible & (seen.scope < seen.scope_threshold),
            no_class | ~seen.eligible,
            ~np.isfinite(seen.score),
        ],
        ["certified", "no_certificate", "out_of_scope", "class_not_certified", "no_score"],
        "below_threshold",
    )
    return found.astype(np.str_)


def _class_uncertified(seen: CalibrationView) -> Bools:
    if not seen.certificate.per_class:
        return np.zeros(len(seen), bool)
    certified = {row.label for row in seen.certificate.classes if row.certified}
    return ~np.isin(seen.classes[seen.top], sorted(certified))


def examples_of(seen: CalibrationView, each: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """Return up to `each` random handled and deferred rows with their reasons."""
    codes, rng = reason_codes(seen), np.random.default_rng(seed)
    chosen = []
    for part in (seen.handled, ~seen.handled):
        rows = np.flatnonzero(part)
        chosen += sorted(rng.choice(rows, min(each, len(rows)), replace=False).tolist())
    return [row_of(seen, i) | {"reason": codes[i], "why": REASONS[str(codes[i])]} for i in chosen]


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
