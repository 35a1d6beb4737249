"""Disagreement cards: rows on which surrogate and teacher differ, likeliest teacher mistakes first."""

from typing import Any

import numpy as np

from tracer_serve.records import Bools, Floats, Ints
from tracer_serve.report.kin import Kin
from tracer_serve.report.reasons import row_of
from tracer_serve.report.ridge import leave_one_out
from tracer_serve.report.seen import Seen

_EVIDENCE = 3
# Chosen on planted errors in Banking77 (2,000 and 4,000 rows): of 20 random ones 16 to 19 are among the first 40 cards,
# of 20 swaps with the nearest text of another label 7 to 15; the other cards are doubts that were there before.
_TASTE, _SCALE = 0.3, 0.1


def cards_of(seen: Seen, kin: Kin, limit: int = 100) -> dict[str, Any]:
    """Rank the disagreements by how much speaks for the surrogate.

    Three witnesses, none of which has seen the row's own label: the agreement that other rows predict for its score,
    and what a ridge classifier that leaves the row out thinks of the surrogate's and of the teacher's label.
    ``suspicion`` multiplies them. A teacher label that is merely less likely is a matter of taste and ranks low;
    one that nothing speaks for is a likely slip and ranks high.

    Parameters
    ----------
    kin : of the disagreeing rows (a sample where there are very many)
    """
    rows = kin.of
    for_surrogate, for_teacher = kin.votes(seen.truth, seen.top[rows]), kin.votes(seen.truth, seen.truth[rows])
    suspicion = suspicion_of(seen, rows)
    order = np.argsort(-suspicion, kind="stable")[:limit]
    return {
        "disagreements": int((~seen.agreed).sum()),
        "ranked": len(rows),
        "cards": [
            row_of(seen, int(rows[i]))
            | {
                "input": seen.texts[int(rows[i])],
                "suspicion": suspicion[i],
                "kin_for_surrogate": for_surrogate[i],
                "kin_for_teacher": for_teacher[i],
                "agreeing": _evidence(seen, kin, int(i), seen.top[rows[i]], seen.agreed),
                "opposing": _evidence(seen, kin, int(i), seen.truth[rows[i]], np.ones(len(seen), bool))[:1],
            }
            for i in order
        ],
    }


def suspicion_of(seen: Seen, rows: Ints) -> Floats:
    """Return how much speaks for a mistake of the teacher, from 0 to 1; it ranks and is no probability."""
    scores = leave_one_out(seen.vectors, seen.truth, len(seen.classes), rows)
    each = np.arange(len(rows))
    surrogate, teacher = scores[each, seen.top[rows]], scores[each, seen.truth[rows]]
    lead = (_TASTE * surrogate - teacher) / _SCALE
    odds: Floats = seen.predicted[rows] * np.exp(lead)
    return odds / (1.0 + odds)


def _evidence(seen: Seen, kin: Kin, i: int, label: Ints | int, among: Bools) -> list[dict[str, Any]]:
    """Return the nearest kin with the label, of those rows."""
    wanted = kin.known[i] & (seen.truth[kin.row[i]] == label) & among[kin.row[i]]
    return [
        {"text": seen.shown(int(kin.row[i, j])), "label": seen.classes[label], "cosine": kin.similarity[i, j]}
        for j in np.flatnonzero(wanted)[:_EVIDENCE]
    ]
