"""Which candidate to certify: surrogate x acceptor, compared on cross-fitted coverage at alpha.

The choice is cross-fitted too: the rows of a fold are scored by the candidate that the *other* folds prefer. A row's
label therefore never helps to choose the candidate that speaks for it, and picking the luckiest of many useless
candidates gains nothing (gate.md, section 2: choosing happens on rows that the certificate does not use).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from tracer_serve.fit.crossfit import OutOfFold
from tracer_serve.gate.bounds import p_values
from tracer_serve.records import Bools, Floats, Ints

_GRID = 200


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A surrogate with an acceptor (None: the family `global`).

    Parameters
    ----------
    surrogate, acceptor : their places in the spec
    score : cross-fitted scores, shape (n,)
    eligible : rows that the scope guard lets pass, shape (n,)
    """

    surrogate: int
    acceptor: int | None
    oof: OutOfFold
    score: Floats
    eligible: Bools


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate, and how rows score under the cross-fitted choice.

    Parameters
    ----------
    candidate : preferred on all rows; this one is refitted and served
    score : cross-fitted score of each row, on the scale of `candidate`, shape (n,)
    agreed : whether the label of the row's own candidate is the teacher's, shape (n,)
    top, second : class indices of its two most probable labels, shape (n,)
    eligible : whether its scope guard lets the row pass, shape (n,)
    """

    candidate: Candidate
    score: Floats
    agreed: Bools
    top: Ints
    second: Ints
    eligible: Bools


def reach(score: Floats, agreed: Bools, eligible: Bools, alpha: float, delta: float) -> float:
    """Return the largest share of rows, best first, whose agreement is at least alpha with an exact bound at delta.

    A yardstick for comparing candidates, not a certificate: it looks at every threshold on the same rows.
    """
    usable = eligible & np.isfinite(score)
    order = np.argsort(-score[usable], kind="stable")
    if not len(order):
        return 0.0
    agreements = np.cumsum(agreed[usable][order])
    last_of_tie = np.append(np.flatnonzero(np.diff(score[usable][order])), len(order) - 1)
    step = max(1, len(last_of_tie) // _GRID)
    ends = np.union1d(last_of_tie[::step], last_of_tie[-1:])
    passed = ends[p_values(agreements[ends], ends + 1, alpha) <= delta]
    return float((passed.max(initial=-1) + 1) / len(score))


def choose(
    candidates: Sequence[Candidate], fold: Ints, fair: Bools, alpha: float, delta: float
) -> tuple[Choice, list[float]]:
    """Choose by `reach`, ties by overall agreement; also return every candidate's reach on all fair rows.

    Parameters
    ----------
    fold : fold of each row, shape (n,)
    fair : rows that may calibrate, shape (n,)
    """

    def yardstick(c: Candidate, rows: Bools) -> tuple[float, float]:
        agreed = c.oof.agreed[rows]
        return reach(c.score[rows], agreed, c.eligible[rows], alpha, delta), float(agreed.mean()) if len(
            agreed
        ) else 0.0

    def best(rows: Bools) -> Candidate:
        return max(candidates, key=lambda c: yardstick(c, rows))

    winner = best(fair)
    chosen = np.full(len(fold), candidates.index(winner))
    if len(candidates) > 1:
        for held_out in np.unique(fold):
            chosen[fold == held_out] = candidates.index(best(fair & (fold != held_out)))
    score = np.full(len(fold), np.nan)
    top, second = winner.oof.top.copy(), winner.oof.second.copy()
    agreed, eligible = winner.oof.agreed.copy(), winner.eligible.copy()
    for number in np.unique(chosen):
        rows, local = chosen == number, candidates[number]
        score[rows] = translate(local.score[rows], local.score, winner.score)
        top[rows], second[rows] = local.oof.top[rows], local.oof.second[rows]
        agreed[rows], eligible[rows] = local.oof.agreed[rows], local.eligible[rows]
    return Choice(winner, score, agreed, top, second, eligible), [yardstick(c, fair)[0] for c in candidates]


def translate(score: Floats, source: Floats, target: Floats) -> Floats:
    """Carry scores from one candidate's scale to another's, by rank: the safest 10 % stay the safest 10 %."""
    if source is target:
        return score
    known, goal = np.sort(source[np.isfinite(source)]), np.sort(target[np.isfinite(target)])
    if not len(known) or not len(goal):
        return np.full_like(score, np.nan)
    rank = np.searchsorted(known, score, side="right") / len(known)
    carried = goal[np.clip(np.ceil(rank * len(goal)).astype(int) - 1, 0, len(goal) - 1)]
    return np.where(np.isfinite(score), carried, np.nan)


def predicted_agreement(score: Floats, agreed: Bools, new: Floats) -> Floats:
    """Predict P(agree) for `new` scores by isotonic regression; it only decides where the gate's walk starts.

    Each step of the fit is shrunk as if half a row more had agreed and half a row more had not: a step of a few rows
    that all agree would promise certainty, and the walk would start, and often end, at the strictest threshold.
    """
    usable = np.isfinite(score)
    if not usable.any():
        return np.zeros(len(new))
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score[usable], agreed[usable])
    level, rows = np.unique(model.predict(score[usable]), return_counts=True)
    fitted = model.predict(np.where(np.isfinite(new), new, score[usable].min()))
    return np.interp(fitted, level, (level * rows + 0.5) / (rows + 1.0))


def cross_predicted(score: Floats, agreed: Bools, fold: Ints) -> Floats:
    """Predict each row's agreement from the other folds' rows; shape (n,)."""
    predicted = np.zeros(len(score))
    for held_out in np.unique(fold):
        test = fold == held_out
        predicted[test] = predicted_agreement(score[~test], agreed[~test], score[test])
    return predicted
