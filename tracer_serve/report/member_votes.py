"""Votes of a blend's members on rows that none of them was fitted on."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracer_serve.fit.cross_fit import aligned, fit_surrogate
from tracer_serve.fit.result import Fitted
from tracer_serve.policy.stage import gather
from tracer_serve.protocols import Ensemble
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.reasons import row_of
from tracer_serve.types import Evidence, Inputs, Ints, Vectors

_MOST = 2_000  # rows of a half
_BUDGET_S = 4.0  # CPU seconds of the two fits, by the clock of the fit
_FITS = 5.0  # fits included in a candidate's seconds
_EXAMPLES = 20
_OTHER_HALF = "Each row is judged by a model of the served kind that was fitted on another half of the rows."
_SERVED = "Each row is judged by the served model, which was fitted on other rows."


def members_of(fitted: Fitted, seen: CalibrationView, seed: int = 0) -> dict[str, Any] | None:
    """Return how often the members give different labels, deferred and handled, and examples with all votes.

    None if the surrogate (of a cascade: the last one) has no members, or if two fits would take too long.
    """
    surrogate = fitted.policy.surrogate
    if not isinstance(surrogate, Ensemble):
        return None
    found = list(_asked(fitted, seen, seed))
    if not found:
        return None
    rows, proba = np.concatenate([r for r, _ in found]), np.concatenate([p for _, p in found], axis=1)
    votes = proba.argmax(axis=2)
    differ, handled = (votes != votes[0]).any(axis=0), seen.handled[rows]
    names = [str(getattr(member, "type", member)) for member in getattr(surrogate, "members", range(len(votes)))]
    return {
        "method": _SERVED if fitted.certificate.mode == "strict" else _OTHER_HALF,
        "names": names,
        "deferred": _split(differ[~handled]),
        "handled": _split(differ[handled]),
        "examples": [
            row_of(seen, int(rows[i]))
            | {
                "votes": [
                    {"member": name, "label": seen.classes[votes[m, i]], "prob": proba[m, i].max()}
                    for m, name in enumerate(names)
                ]
            }
            for i in np.flatnonzero(differ & ~handled)[:_EXAMPLES]
        ],
    }


def _split(differ: Any) -> dict[str, Any]:
    return {"rows": len(differ), "differ": int(differ.sum()), "share": float(differ.mean()) if len(differ) else None}


def _asked(fitted: Fitted, seen: CalibrationView, seed: int) -> Iterator[tuple[Ints, Vectors]]:
    """Yield rows (m,) and the members' probabilities of them over all classes (members, m, k)."""
    inputs, labels = Inputs(seen.texts, seen.vectors), seen.classes[seen.truth]
    order = np.random.default_rng(seed).permutation(len(seen))
    if fitted.certificate.mode == "strict":
        some = order[:_MOST]
        yield some, _ask(fitted.policy.surrogate, inputs.take(some), seen)
        return
    per_row = max(c.seconds for c in fitted.candidates) / _FITS / max(1, len(seen))
    size = min(_MOST, len(seen) // 2, int(_BUDGET_S / 2 / max(per_row, 1e-9)))
    side = np.random.default_rng(seed).permutation(int(seen.group.max(initial=-1)) + 1)[seen.group] % 2  # whole groups
    halves = [order[side[order] == which][:size] for which in (0, 1)]
    for train, test in (halves, halves[::-1]):
        if len(np.unique(labels[train])) < 2 or not len(test):  # noqa: PLR2004  # a single class
            return
        model = fit_surrogate(copy.deepcopy(fitted.policy.surrogate), inputs.take(train), labels[train], len(seen))
        yield test, _ask(model, inputs.take(test), seen)


def _ask(model: Any, inputs: Inputs, seen: CalibrationView) -> Vectors:
    evidence: Evidence = aligned(
        gather(model, inputs, seen.index.query(inputs.embeddings)), model.classes_, seen.classes
    )
    return evidence.members
