"""Disagreement cards: rows on which surrogate and teacher differ, likeliest teacher mistakes first."""

from typing import Any

import numpy as np

from tracer_serve.config.fields import label_in_words
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.leave_one_out import leave_one_out
from tracer_serve.report.neighbours import NeighbourRows, closeness
from tracer_serve.report.reasons import row_of
from tracer_serve.types import Bools, Floats, Ints

_EVIDENCE = 3
# Tuned on errors planted in Banking77 and in the shipped traces (figures: docs/report.md). Halving or doubling one of
# them changes the first 40 cards by one or two planted errors.
_TRUST, _LEAN, _NEARER = 3.0, 8.0, 1.5
_DOUBT = 4.3  # log odds at which a suspicion is a half
_RARE = 0.5  # of an equal share of the rows, under which a label is called rare
_USUAL = 2_000  # agreeing rows used to estimate the spread of closeness


def cards_of(seen: CalibrationView, near: NeighbourRows, limit: int = 100) -> dict[str, Any]:
    """Rank the disagreements by the evidence for a mistake of the teacher.

    Three kinds of evidence, none of which uses the row's own label: the agreement that other rows predict for its
    score; how much a leave-one-out ridge classifier prefers the surrogate's label; and how much closer the three
    nearest rows of the surrogate's label are than those of the teacher's. ``suspicion`` is their sum in log odds.

    Parameters
    ----------
    near : neighbours of the disagreeing rows, or of a sample of them

    Returns
    -------
    Also a ``caution`` per card, None for most: where the teacher's label is rare, a confident surrogate says little,
    and correcting its rows would push the label out. ``contradicted_by`` is a near-duplicate to which the teacher gave
    the surrogate's label, which is evidence whatever the label's size.
    """
    rows = near.of
    for_surrogate, for_teacher = near.votes(seen.truth, seen.top[rows]), near.votes(seen.truth, seen.truth[rows])
    suspicion = suspicion_of(seen, rows)
    order = np.argsort(-suspicion, kind="stable")[:limit]
    cautions, contradictions = _cautions(seen), _contradictions(seen, rows)
    return {
        "disagreements": int((~seen.agreed).sum()),
        "ranked": len(rows),
        "cards": [
            row_of(seen, int(rows[i]))
            | {
                "input": seen.texts[int(rows[i])],
                "suspicion": suspicion[i],
                "caution": cautions.get(int(seen.truth[rows[i]])),
                "contradicted_by": contradictions[i],
                "neighbours_for_surrogate": for_surrogate[i],
                "neighbours_for_teacher": for_teacher[i],
                "agreeing": _evidence(seen, near, int(i), seen.top[rows[i]], seen.agreed),
                "opposing": _evidence(seen, near, int(i), seen.truth[rows[i]], np.ones(len(seen), bool))[:1],
            }
            for i in order
        ],
    }


def _cautions(seen: CalibrationView) -> dict[int, str]:
    """Return a sentence about each rare label, by its index."""
    size = len(seen.classes)
    rows, found = np.bincount(seen.truth, minlength=size), np.bincount(seen.truth[seen.agreed], minlength=size)
    return {
        int(i): f"{label_in_words(str(seen.classes[i]))!r} is rare ({rows[i]:,} of {len(seen):,} rows), and the"
        f" surrogate finds {found[i]:,} of them. Its confidence is weak evidence against this label."
        for i in np.flatnonzero((rows > 0) & (rows < _RARE * len(seen) / size))
    }


def _contradictions(seen: CalibrationView, rows: Ints) -> list[str | None]:
    """Return for each row a near-duplicate to which the teacher gave the surrogate's label, None without one."""
    given = {(int(seen.group[i]), int(seen.truth[i])): int(i) for i in reversed(range(len(seen)))}
    twins = [given.get((int(seen.group[row]), int(seen.top[row]))) for row in rows]
    return [None if twin is None else seen.shown(twin) for twin in twins]


def suspicion_of(seen: CalibrationView, rows: Ints) -> Floats:
    """Return a score of a mistake of the teacher from 0 to 1; it ranks and is not a probability."""
    scores = leave_one_out(seen.vectors, seen.truth, len(seen.classes), rows)
    each, top, truth = np.arange(len(rows)), seen.top[rows], seen.truth[rows]
    lean = scores[each, top] - scores[each, truth]
    # a label without another row, such as a new one, has no closeness; that is not evidence against the teacher
    nearer = np.nan_to_num(closeness(seen, rows, top) - closeness(seen, rows, truth))
    trust = np.log(np.maximum(seen.predicted[rows], 1e-9))
    log_odds = _TRUST * trust + _LEAN * lean + _NEARER * nearer / _spread(seen) - _DOUBT
    suspicion: Floats = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -50.0, 50.0)))
    return suspicion


def _spread(seen: CalibrationView) -> float:
    """Return the spread of rows' closeness to their own label, which depends on the embedder."""
    usual = np.random.default_rng(0).permutation(np.flatnonzero(seen.agreed))[:_USUAL]
    own = closeness(seen, usual, seen.truth[usual])
    return max(1e-6, float(np.nanstd(own))) if np.isfinite(own).any() else 1.0


def _evidence(
    seen: CalibrationView, near: NeighbourRows, i: int, label: Ints | int, among: Bools
) -> list[dict[str, Any]]:
    """Return the nearest neighbours with the label among the rows `among`."""
    wanted = near.known[i] & (seen.truth[near.row[i]] == label) & among[near.row[i]]
    return [
        {"text": seen.shown(int(near.row[i, j])), "label": seen.classes[label], "cosine": near.similarity[i, j]}
        for j in np.flatnonzero(wanted)[:_EVIDENCE]
    ]
