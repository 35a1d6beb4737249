"""Votes of a blend's members on rows that none of them was fitted on."""

from typing import Any

import numpy as np

from tracer_serve.fit.cross_fit import Votes, aligned
from tracer_serve.fit.result import Fitted
from tracer_serve.policy.stage import gather
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.reasons import row_of
from tracer_serve.types import Inputs, Ints

_MOST = 2_000  # rows that the served model is asked about
_EXAMPLES = 20
_OUT_OF_FOLD = "Each row is judged by the cross-fit's model of the served kind that was fitted without it."
_SERVED = "Each row is judged by the served model, which was fitted on other rows."


def members_of(fitted: Fitted, seen: CalibrationView, seed: int = 0) -> dict[str, Any] | None:
    """Return how often the members give different labels, deferred and handled, and examples with all votes.

    None if the surrogate (of a cascade: the last one) has no members.
    """
    found = _votes(fitted, seen, np.random.default_rng(seed).permutation(len(seen)))
    if found is None:
        return None
    rows, votes = found
    differ, handled = (votes.top != votes.top[0]).any(axis=0), seen.handled[rows]
    members = getattr(fitted.policy.surrogate, "members", range(len(votes.top)))
    names = [str(getattr(member, "type", member)) for member in members]
    return {
        "method": _SERVED if fitted.votes is None else _OUT_OF_FOLD,
        "names": names,
        "deferred": _split(differ[~handled]),
        "handled": _split(differ[handled]),
        "examples": [
            row_of(seen, int(rows[i]))
            | {
                "votes": [
                    {"member": name, "label": seen.classes[votes.top[m, i]], "prob": votes.probability[m, i]}
                    for m, name in enumerate(names)
                ]
            }
            for i in np.flatnonzero(differ & ~handled)[:_EXAMPLES]
        ],
    }


def _split(differ: Any) -> dict[str, Any]:
    return {"rows": len(differ), "differ": int(differ.sum()), "share": float(differ.mean()) if len(differ) else None}


def _votes(fitted: Fitted, seen: CalibrationView, order: Ints) -> tuple[Ints, Votes] | None:
    """Return rows and the votes on them: the cross-fit's, else those of the served model, which has not seen them."""
    if fitted.votes is not None:
        return order, fitted.votes.take(fitted.calibration.fair).take(order)
    if fitted.certificate.mode != "strict":
        return None
    rows, model = order[:_MOST], fitted.policy.surrogate
    inputs = Inputs(seen.texts, seen.vectors).take(rows)
    evidence = gather(model, inputs, seen.index.query(inputs.embeddings))
    votes = Votes.of(aligned(evidence, model.classes_, seen.classes).members)
    return None if votes is None else (rows, votes)
