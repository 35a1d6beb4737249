"""Detect a drop in agreement, and exclude the rows before it from calibration.

Folds are random in time, so a certificate on all rows averages over the window: rows of a better past outvote this
week's. Halving keeps the test exact where nothing changes. Whether the newer half agrees less depends on how the
agreements are ordered, which is independent of how many there are; and where the half alone is tested, it is the worse
one. Source of the halving: ADWIN (Bifet and Gavaldà, SIAM SDM 2007), with a loose test, as rows are cheap to lose here.
"""

import numpy as np

from tracer_serve.gate.group_sample import one_each
from tracer_serve.types import Bools, Ints

_SUSPECT = 0.2  # p-value at which the older half is left out; a drop of two standard errors is found in 88 %


def since_drop(agreed: Bools, usable: Bools, groups: Ints, arrived: Ints, least: int) -> Bools:
    """Mark the rows since agreement last dropped, shape (n,); all of them if it did not.

    The window is halved as long as its newer half agrees less than its older one.

    Parameters
    ----------
    agreed : whether the answer is the teacher's, shape (n,)
    usable : rows that count in the comparison, shape (n,)
    groups : group of each row, 0, 1, 2 ..., shape (n,); one row of each counts
    arrived : order of arrival; rows with equal numbers are never parted, shape (n,)
    least : minimum number of rows in a half

    Examples
    --------
    >>> agreed = np.arange(400) % np.where(np.arange(400) < 200, 100, 5) > 0
    >>> all_rows = np.ones(400, bool)
    >>> int(since_drop(agreed, all_rows, np.arange(400), np.arange(400), 50).sum())
    200
    """
    single = np.flatnonzero(one_each(groups) & usable)
    order = single[np.argsort(arrived[single], kind="stable")]
    since = arrived.min(initial=0)
    while len(order) >= 2 * least:
        cut = int(np.searchsorted(arrived[order], arrived[order[len(order) // 2]], side="left"))
        if min(cut, len(order) - cut) < least or not _dropped(agreed[order[:cut]], agreed[order[cut:]]):
            break
        order = order[cut:]
        since = arrived[order[0]]
    kept: Bools = arrived >= since
    return kept


def _dropped(older: Bools, newer: Bools) -> bool:
    """Return whether the newer rows agree less, by Fisher's exact test."""
    from scipy.stats import hypergeom  # noqa: PLC0415  # as in `gate.binomial`

    agreements = int(older.sum() + newer.sum())
    p = hypergeom.cdf(int(newer.sum()), len(older) + len(newer), agreements, len(newer))
    return bool(p < _SUSPECT)
