"""Groups of rows with one cause: the unit of folds, of the pilot and of the test (gate.md, section 8).

Retries, templates and the messages of one conversation are answered alike. They are no independent evidence, and a
model that has seen one of them answers the others from memory.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tracer_serve.gate.templates import template_ids
from tracer_serve.gate.words import words_of
from tracer_serve.types import Ints, Text

GroupBy = Literal["template", "duplicate"]


def groups_of(texts: Sequence[Text], named: Sequence[str] = (), by: GroupBy = "template") -> Ints:
    """Give each row the number of its group, shape (n,), counted from 0 in order of appearance.

    A group that the caller named is taken as it is. Rows without one are grouped by near duplicates
    (`duplicate_groups`) and, by default, by template (`gate.templates`).

    Parameters
    ----------
    named : the caller's group of each row; empty if it named none; or no rows at all
    by : ``template``, or ``duplicate`` to count texts of one template as independent

    Examples
    --------
    >>> groups_of(["Your code is 7711", "Close it", "your code is 9Z02"]).tolist()
    [0, 1, 0]
    >>> groups_of(["yes", "yes", "no"], ["user 1", "user 2", "user 1"]).tolist()
    [0, 1, 0]
    """
    if not len(texts):
        return np.empty(0, np.int64)
    same = duplicate_groups(texts)
    template = template_ids(texts) if by == "template" else same
    node = template + same.max() + 1
    size = int(node.max()) + 1
    linked = coo_matrix((np.ones(len(same)), (same, node)), (size, size))
    found = connected_components(linked, directed=False)[1][same]
    keys = (name or int(group) for name, group in zip(named or [""] * len(texts), found, strict=True))
    return _numbered(keys)


def duplicate_groups(texts: Sequence[Text]) -> Ints:
    """Give each text a number such that exact and near duplicates share it.

    Near means: the same words, whatever their case, order, repetition, punctuation and encoding. A duplicate on both
    sides of a fold would be answered from memory and flatter the certificate (gate.md, section 8).

    Returns
    -------
    group per text, shape (n,), numbered from 0 in order of appearance

    Examples
    --------
    >>> duplicate_groups(["Where is my card?", "where is MY card", "Close it"]).tolist()
    [0, 0, 1]
    """
    return _numbered(map(_word_set, texts))


def row_hashes(texts: Sequence[Text]) -> NDArray[np.uint64]:
    """Return a number per text that near duplicates share and that is the same in every process, shape (n,)."""
    digests = (
        hashlib.blake2b("\0".join(_word_set(text)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.fromiter((int.from_bytes(digest) for digest in digests), np.uint64, len(texts))


def _word_set(text: Text) -> tuple[str, ...]:
    if isinstance(text, tuple):
        return (*_word_set(text[0]), "|", *_word_set(text[1]))
    return tuple(sorted({*words_of(text)}))


def _numbered(keys: Iterable[Hashable]) -> Ints:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
