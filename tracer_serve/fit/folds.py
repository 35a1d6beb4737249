"""Which rows are held out together: random folds in which duplicates never part."""

import hashlib
import unicodedata
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tracer_serve.types import Bools, Floats, Ints, Text

_FRAME = 3  # words that make a template; with fewer the numbers are what is said


class _Letters(dict[int, str]):
    """For `str.translate`: letters, digits and the marks that belong to them stay, all else parts words."""

    def __missing__(self, code: int) -> str:
        character, kind = chr(code), unicodedata.category(chr(code))
        mark = kind[0] == "M" and not unicodedata.name(character, "").startswith("VARIATION SELECTOR")  # of an emoji
        return self.setdefault(code, character if mark or character == "_" or character.isalnum() else " ")


_LETTERS = _Letters()


def duplicate_groups(texts: Sequence[Text]) -> Ints:
    """Give each text a number such that exact and near duplicates share it.

    Near means: the same words, whatever their case, order, repetition, punctuation and encoding. A duplicate on both
    sides of a fold would be answered from memory and flatter the certificate (gate.md, section 2).

    Returns
    -------
    group per text, shape (n,), numbered from 0 in order of appearance

    Examples
    --------
    >>> duplicate_groups(["Where is my card?", "where is MY card", "Close it"]).tolist()
    [0, 0, 1]
    """
    return _numbered(map(_words, texts))


def burst_groups(texts: Sequence[Text]) -> Ints:
    """Give each text a number such that what one cause may have sent shares it: no independent evidence.

    That is near-duplicates (`duplicate_groups`) wherever they stand, and texts that differ in numbers and codes alone
    where they follow each other directly. Elsewhere those count apart: much honest traffic is made of few templates.

    Returns
    -------
    group per text in order of arrival, shape (n,), numbered from 0 in order of appearance

    Examples
    --------
    >>> burst_groups(["Your code is 7711", "Your code is 9Z02", "Close it", "Your code is 5"]).tolist()
    [0, 0, 1, 2]
    """
    if not len(texts):
        return np.empty(0, np.int64)
    same, frame = duplicate_groups(texts), _numbered(map(_frame, texts))
    run = np.cumsum(np.append(True, frame[1:] != frame[:-1])) + same.max()
    size = int(run[-1]) + 1
    groups: Ints = connected_components(coo_matrix((np.ones(len(same)), (same, run)), (size, size)), directed=False)[1]
    return groups[same].astype(np.int64)


def random_folds(texts: Sequence[Text], folds: int, seed: int) -> Ints:
    """Deal the texts into folds of about equal size, bursts together; random, not stratified.

    Returns
    -------
    fold of each text, 0 to folds - 1, shape (n,)
    """
    groups = burst_groups(texts)
    count = int(groups.max(initial=-1)) + 1
    dealt = np.random.default_rng(seed).permutation(count) % folds
    return dealt[groups]


def holdout(texts: Sequence[Text], share: float, seed: int) -> Bools:
    """Choose about `share` of the texts at random, bursts together; True = held out, shape (n,)."""
    groups = burst_groups(texts)
    count = int(groups.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(count)
    chosen: Bools = (order < round(share * count))[groups]
    return chosen


def _numbered(keys: Iterable[Hashable]) -> Ints:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _words(text: Text) -> tuple[str, ...]:
    if isinstance(text, tuple):
        return (*_words(text[0]), "|", *_words(text[1]))
    words = sorted({*unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS).split()})
    return tuple(words) if words else (text,)


def _frame(text: Text) -> tuple[str, ...]:
    """Return the words without those that are mostly digits, where enough remains."""
    words = _words(text)
    frame = tuple(word for word in words if 2 * sum(map(str.isdigit, word)) <= len(word))
    return frame if len(frame) >= _FRAME else words


def row_hashes(texts: Sequence[Text]) -> NDArray[np.uint64]:
    """Return a number per text that near-duplicates share and that is the same in every process, shape (n,)."""
    digests = (
        hashlib.blake2b("\0".join(_words(text)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.fromiter((int.from_bytes(digest) for digest in digests), np.uint64, len(texts))


def lasting_holdout(texts: Sequence[Text], share: float, seed: int) -> Bools:
    """Choose as `holdout` does, by a hash: what is held out once stays held out as more texts come, shape (n,).

    So that a model may go on from an earlier one's weights. A burst goes where its least hash goes.
    """
    groups = burst_groups(texts)
    least = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, groups, row_hashes(texts))
    chosen: Bools = (_uniform(least, seed) < share)[groups]
    return chosen


def _uniform(number: NDArray[np.uint64], seed: int) -> Floats:
    """Return a number in [0, 1) per number, by splitmix64 (Steele et al., 2014); the least of many is not uniform."""
    mixed = number + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found: Floats = (mixed ^ (mixed >> np.uint64(31))) / 2.0**64
    return found
