"""How near a row lies to the rows of one label: evidence that no model has touched."""

import numpy as np

from tracer_serve.neighbours import unit
from tracer_serve.records import Floats, Ints
from tracer_serve.report.seen import Seen

_NEAREST = 3
_CELLS = 4_000_000  # cosines held at once: 16 MB


def closeness(seen: Seen, rows: Ints, labels: Ints) -> Floats:
    """Return the mean cosine of each row to the three nearest other rows of a label, NaN where there are none.

    Parameters
    ----------
    rows : shape (m,); near-duplicates of a row do not count for it
    labels : a label for each of them, index into ``seen.classes``, shape (m,)
    """
    vectors, found = unit(seen.vectors), np.full(len(rows), np.nan)
    for label in np.unique(labels):
        members, asked = np.flatnonzero(seen.truth == label), np.flatnonzero(labels == label)
        parts = max(1, len(asked) * len(members) // _CELLS)
        for part in np.array_split(asked, parts):
            cosine = vectors[rows[part]] @ vectors[members].T
            cosine[seen.group[rows[part]][:, None] == seen.group[members]] = -np.inf
            found[part] = _mean_of_best(cosine)
    return found


def _mean_of_best(cosine: Floats) -> Floats:
    best = -np.sort(-cosine, axis=1)[:, :_NEAREST]
    known = np.isfinite(best)
    total = np.where(known, best, 0.0).sum(axis=1)
    mean: Floats = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
    return mean
