"""Which rows are held out together: random folds or the newest groups; neither divides a group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tracer_serve.fit.groups import row_hashes
from tracer_serve.types import Bools, Floats, Ints, Text


def random_folds(groups: Ints, folds: int, seed: int) -> Ints:
    """Assign the groups at random to folds of about equally many groups; not stratified.

    Parameters
    ----------
    groups : group of each row, 0, 1, 2 ..., shape (n,)

    Returns
    -------
    fold of each row, 0 to folds - 1, shape (n,)
    """
    count = int(groups.max(initial=-1)) + 1
    dealt = np.random.default_rng(seed).permutation(count) % folds
    return dealt[groups]


def newest_holdout(groups: Ints, fair: Bools, share: float, seed: int, arrived: Ints | None = None) -> Bools:
    """Hold out the fair rows of the newest groups, a share of the groups that have any; True = held out, shape (n,).

    The certificate is then about what came last, and models are tested on what came after their training. A group is as
    old as its first row, so that what comes again and again trains. Groups of equal or unknown age are in random order.

    Parameters
    ----------
    fair : rows that may calibrate, shape (n,)
    arrived : order of arrival of each row, as in `Rows`, shape (n,)

    Examples
    --------
    >>> groups, arrived = np.array([0, 1, 2, 3, 0]), np.arange(5)
    >>> newest_holdout(groups, np.ones(5, bool), 0.25, 0, arrived).tolist()
    [False, False, False, True, False]
    """
    count = int(groups.max(initial=-1)) + 1
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, groups, np.zeros(len(groups), np.int64) if arrived is None else arrived)
    shuffled = np.random.default_rng(seed).permutation(count)
    order = shuffled[np.argsort(-first[shuffled], kind="stable")]
    eligible = order[np.isin(order, groups[fair])]
    chosen: Bools = np.isin(groups, eligible[: round(share * len(eligible))]) & fair
    return chosen


def lasting_holdout(texts: Sequence[Text], groups: Ints, share: float, seed: int) -> Bools:
    """Choose a share of the groups by a hash: what is held out once stays held out as more texts come, shape (n,).

    So a model can continue from an earlier one's weights. The first text of a group decides.
    """
    _, first = np.unique(groups, return_index=True)
    chosen: Bools = (_uniform(row_hashes([texts[i] for i in first]), seed) < share)[groups]
    return chosen


def _uniform(number: NDArray[np.uint64], seed: int) -> Floats:
    """Return a number in [0, 1) per number, by splitmix64 (Steele et al., 2014)."""
    mixed = number + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found: Floats = (mixed ^ (mixed >> np.uint64(31))) / 2.0**64
    return found
