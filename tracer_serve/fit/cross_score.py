"""Cross-fitted scores: what an acceptor says of rows whose agreement it has not learnt from."""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from tracer_serve.gate.group_sample import numbered, one_each
from tracer_serve.protocols import Acceptor
from tracer_serve.types import Bools, Floats, Ints, Vectors

_CLEARLY = 6.0  # standard errors


def cross_score(
    acceptor: Callable[[], Acceptor], features: Vectors, agreed: Bools, fold: Ints, group: Ints | None = None
) -> Floats | None:
    """Score each row by an acceptor fitted on the other folds' rows; shape (n,), on the scale of the served acceptor.

    The acceptors of the folds and the served one, which is fitted on all rows, differ in scale: by the mean agreement
    of their rows, or because only some saw enough disagreements to learn from. A certified threshold must mean the same
    to all of them: the share of these rows that an acceptor scores higher. So scores are carried over by rank.

    A learned score that does not clearly rank agreements above disagreements is None, and may not be used. Its
    cross-fit is optimistic: the features of the rows it learns from come from surrogates that have seen the labels of
    the rows it scores. Where there is nothing to learn that alone reaches 5 standard errors, and false certificates
    came two to four times as often as delta; a useful score reaches 10 and more. A group of near-duplicates counts
    once.
    """
    final = acceptor().fit(features, agreed)
    served = final.score(features)
    score = np.full(len(features), np.nan)
    for held_out in np.unique(fold):
        test = fold == held_out
        own = acceptor().fit(features[~test], agreed[~test]).score(features)
        score[test] = translate(own[test], own, served)
    single = one_each(numbered(group, len(agreed)))
    if getattr(final, "learnt", True) and evidence_of(score[single], agreed[single]) < _CLEARLY:
        return None
    return score


def evidence_of(score: Floats, agreed: Bools) -> float:
    """Return by how many standard errors agreements score higher than disagreements (Mann and Whitney, 1947).

    0 if one of the two is missing, or all scores are equal.
    """
    known = np.isfinite(score)
    good, bad = int(agreed[known].sum()), int((~agreed[known]).sum())
    _, ties = np.unique(score[known], return_counts=True)
    n = good + bad
    variance = good * bad / 12 * (n + 1 - (ties**3 - ties).sum() / max(1, n * (n - 1)))
    if variance <= 0:
        return 0.0
    wins = rankdata(score[known])[agreed[known]].sum() - good * (good + 1) / 2
    return float((wins - good * bad / 2) / np.sqrt(variance))


def translate(score: Floats, source: Floats, target: Floats) -> Floats:
    """Carry scores from one scale to another by rank: the safest 10 % of `source` stay the safest 10 % of `target`."""
    known, goal = np.sort(source[np.isfinite(source)]), np.sort(target[np.isfinite(target)])
    if not len(known) or not len(goal):
        return np.full_like(score, np.nan)
    rank = np.searchsorted(known, score, side="right") / len(known)
    place = np.ceil(rank * len(goal) - 1e-9).astype(int)  # the product of two roundings may lie above a whole number
    carried = goal[np.clip(place - 1, 0, len(goal) - 1)]
    translated: Floats = np.where(np.isfinite(score), carried, np.nan)
    return translated


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
    predicted: Floats = np.interp(fitted, level, (level * rows + 0.5) / (rows + 1.0))
    return predicted


def cross_predicted(score: Floats, agreed: Bools, fold: Ints) -> Floats:
    """Predict each row's agreement from the other folds' rows, (n,); for reports, the gate's start may not use it."""
    predicted = np.zeros(len(score))
    for held_out in np.unique(fold):
        test = fold == held_out
        predicted[test] = predicted_agreement(score[~test], agreed[~test], score[test])
    return predicted
