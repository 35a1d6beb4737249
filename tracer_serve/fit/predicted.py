"""P(agree) of each row as predicted from other rows' scores."""

import numpy as np
from sklearn.isotonic import IsotonicRegression

from tracer_serve.records import Bools, Floats, Ints


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
