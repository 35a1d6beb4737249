"""Which rows are held out together: random folds in which duplicates never part."""

import re
from collections.abc import Sequence

import numpy as np

from tracer_serve.records import Bools, Ints, Text

_TOKEN = re.compile(r"\w+")


def duplicate_groups(texts: Sequence[Text]) -> Ints:
    """Give each text a number such that exact and near duplicates share it.

    Near means: the same words, whatever their case, order, repetition and punctuation. A duplicate on both sides of
    a fold would be answered from memory and flatter the certificate (gate.md, section 2).

    Returns
    -------
    group per text, shape (n,), numbered from 0 in order of appearance

    Examples
    --------
    >>> duplicate_groups(["Where is my card?", "where is MY card", "Close it"]).tolist()
    [0, 0, 1]
    """
    numbers: dict[tuple[str, ...], int] = {}
    keys = (_key(text) for text in texts)
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(texts))


def random_folds(texts: Sequence[Text], folds: int, seed: int) -> Ints:
    """Deal the texts into folds of about equal size, duplicates together; random, not stratified.

    Returns
    -------
    fold of each text, 0 to folds - 1, shape (n,)
    """
    groups = duplicate_groups(texts)
    count = int(groups.max(initial=-1)) + 1
    dealt = np.random.default_rng(seed).permutation(count) % folds
    return dealt[groups]


def holdout(texts: Sequence[Text], share: float, seed: int) -> Bools:
    """Choose about `share` of the texts at random, duplicates together; True = held out, shape (n,)."""
    groups = duplicate_groups(texts)
    count = int(groups.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(count)
    chosen: Bools = (order < round(share * count))[groups]
    return chosen


def _key(text: Text) -> tuple[str, ...]:
    if isinstance(text, tuple):
        return (*_key(text[0]), "|", *_key(text[1]))
    words = sorted({*_TOKEN.findall(text.casefold())})
    return tuple(words) if words else (text,)
