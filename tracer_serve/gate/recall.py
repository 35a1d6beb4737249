"""Recall of the whole system per teacher label (gate.md, section 12).

A deferred request gets the teacher's own label, so a label loses only the requests that are handled under another one.
Agreement over all labels does not show this: a surrogate that never answers with a label of 6 % of the traffic keeps
94 %.
"""

import numpy as np

from tracer_serve.gate.binomial import exact_interval
from tracer_serve.gate.certificate import Certificate, LabelRecall
from tracer_serve.types import Bools, Ints, Labels

_BELOW_ALPHA = 0.15  # recall that is this much lower than alpha is a warning


def recall_table(classes: Labels, truth: Ints, handled: Bools, agreed: Bools) -> tuple[LabelRecall, ...]:
    """Return a row per teacher label that occurs, lowest recall first.

    Parameters
    ----------
    classes : the labels that `truth` indexes, shape (k,)
    truth : the teacher's label of each row, shape (n,)
    handled : whether the surrogate answers the row, shape (n,)
    agreed : whether its answer is the teacher's label, shape (n,)

    Examples
    --------
    >>> names, truth, yes = np.array(["ham", "spam"]), np.repeat([0, 1], [8, 2]), np.ones(10, bool)
    >>> [(row.label, row.recall) for row in recall_table(names, truth, yes, truth == 0)]
    [('spam', 0.0), ('ham', 1.0)]
    """
    every = np.ones(len(truth), bool)
    rows, answered, right = (
        np.bincount(truth[some], minlength=len(classes)) for some in (every, handled, handled & agreed)
    )
    kept = rows - (answered - right)
    low, high = exact_interval(kept, rows)
    table = [
        LabelRecall(
            label=str(name),
            rows=int(rows[i]),
            handled=int(answered[i]),
            right=int(right[i]),
            recall=float(kept[i] / rows[i]),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, name in enumerate(classes)
        if rows[i]
    ]
    return tuple(sorted(table, key=lambda row: (row.recall, row.high, row.label)))


def low_recalls(found: Certificate) -> tuple[LabelRecall, ...]:
    """Return the unprotected labels whose recall is significantly and more than .15 below alpha, lowest first.

    Empty if nothing is certified, because then everything is deferred.
    """
    if not found.certified:
        return ()
    least, protected = found.alpha - _BELOW_ALPHA, {label.label for label in found.protected}
    low = (row for row in found.recalls if row.recall < least and row.high < found.alpha)
    return tuple(row for row in low if row.label not in protected)
