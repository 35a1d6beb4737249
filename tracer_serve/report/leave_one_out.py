"""Leave-one-out scores of a ridge classifier, in closed form."""

import numpy as np

from tracer_serve.types import Floats, Ints, Vectors

_CHUNK = 4096


def leave_one_out(vectors: Vectors, codes: Ints, classes: int, rows: Ints, penalty: float = 1.0) -> Floats:
    """Return scores per class of some rows, each by a ridge regression without that row.

    The n regressions need one inverse: f_-i = (f_i - h_i y_i) / (1 - h_i), with the leverage h_i (Allen's PRESS, 1974).

    Parameters
    ----------
    vectors : all rows, shape (n, d)
    codes : their classes, shape (n,), from 0 to classes - 1
    rows : the rows to score, shape (m,)

    Returns
    -------
    Shape (m, classes); about 1 for the class of a clear row, about 0 for the others.

    Examples
    --------
    >>> clear = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    >>> scores = leave_one_out(clear, np.repeat([0, 1], 5), 2, np.array([0]), penalty=0.01)
    >>> scores.round(1).tolist()
    [[1.0, 0.0]]
    """
    width = vectors.shape[1] + 1
    gram, cross = penalty * np.eye(width), np.zeros((width, classes))
    for start in range(0, len(vectors), _CHUNK):
        part = _with_one(vectors[start : start + _CHUNK])
        gram += part.T @ part
        np.add.at(cross.T, codes[start : start + _CHUNK], part)
    inverse = np.linalg.inv(gram)
    asked = _with_one(vectors[rows])
    leverage = np.einsum("ij,ij->i", asked @ inverse, asked)[:, None]
    own = np.zeros((len(rows), classes))
    own[np.arange(len(rows)), codes[rows]] = 1.0
    scores: Floats = (asked @ (inverse @ cross) - leverage * own) / np.maximum(1.0 - leverage, 1e-9)
    return scores


def _with_one(vectors: Vectors) -> Floats:
    return np.hstack([vectors.astype(np.float64), np.ones((len(vectors), 1))])
