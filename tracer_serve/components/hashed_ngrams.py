"""Hash word and character n-grams of many texts at once, with numpy alone.

Every text becomes ``" token token"``. Word n-grams are spans between spaces; character n-grams are windows without an
inner space, as in scikit-learn's ``char_wb``. The hash of a span is a polynomial over its code points modulo 2^64,
computed from prefix sums (Karp and Rabin 1987), so that no n-gram becomes a string: 10,000 short texts take a quarter
of a second, one text a fifth of a millisecond. A hash depends on its n-gram only; vocabulary and idf are learned by
`learn_vocabulary` from the rows of one fit.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracer_serve.types import Ints, Text, Vectors, sides_of

Hashes = NDArray[np.uint64]
Grams = NDArray[np.uint32]

_TOKEN = re.compile(r"\w+|[^\w\s]+")
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)  # exists because the base is odd
_CHAR_LENGTHS = (3, 4, 5)
_WORD_LENGTHS = (1, 2)
_CHUNK = 4096  # texts hashed at once, so that scratch memory stays small


class GramCounts(NamedTuple):
    """Number of `times` that n-gram `gram` occurs in text `row`: three aligned arrays, sorted by row, then gram."""

    row: Ints
    gram: Grams
    times: Ints


def count_ngrams(texts: Sequence[Text]) -> GramCounts:
    """Count the word 1-2-grams and character 3-5-grams of each text; the sides of a pair have separate n-grams."""
    parts = [_count_chunk(texts[i : i + _CHUNK], i) for i in range(0, max(1, len(texts)), _CHUNK)]
    return GramCounts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def learn_vocabulary(counts: GramCounts, rows: int, min_rows: int, most: int) -> tuple[Grams, Vectors]:
    """Return the grams kept, ascending, and the smoothed idf of each.

    Keep n-grams that occur in at least `min_rows` texts (all, if none does), and of those the `most` most common.
    """
    grams, found_in = np.unique(counts.gram, return_counts=True)
    if (found_in >= min_rows).any():
        grams, found_in = grams[found_in >= min_rows], found_in[found_in >= min_rows]
    common = np.sort(np.argsort(-found_in, kind="stable")[:most])
    grams, found_in = grams[common], found_in[common]
    if not len(grams):  # all texts are empty: one gram that no text has
        grams, found_in = np.zeros(1, np.uint32), np.zeros(1, np.int64)
    idf: Vectors = (np.log((1 + rows) / (1 + found_in)) + 1).astype(np.float32)
    return grams, idf


class Weights(NamedTuple):
    """Sparse rows: those of row i are at ``starts[i]:starts[i + 1]``."""

    value: Vectors
    column: Ints
    starts: Ints


def weigh(counts: GramCounts, rows: int, grams: Grams, idf: Vectors) -> Weights:
    """Return tf-idf (rows, len(grams)) with sublinear tf and unit-length rows; unknown n-grams are dropped."""
    column = np.searchsorted(grams, counts.gram).clip(max=len(grams) - 1)
    known = grams[column] == counts.gram
    row, column = counts.row[known], column[known]
    value = (1 + np.log(counts.times[known])).astype(np.float32) * idf[column]
    length = np.sqrt(np.bincount(row, value * value, minlength=rows))
    value = (value / length[row]).astype(np.float32)
    return Weights(value, column, np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]))


def _count_chunk(texts: Sequence[Text], first_row: int) -> GramCounts:
    row, gram = _hash(texts)
    key, count = np.unique((row << np.uint64(32)) | gram, return_counts=True)
    return GramCounts((key >> np.uint64(32)).astype(np.int64) + first_row, key.astype(np.uint32), count)


def _hash(texts: Sequence[Text]) -> tuple[Hashes, Hashes]:
    """Return row and 32-bit hash of every gram of every text, repeats included."""
    sides = [(i, side, part) for i, text in enumerate(texts) for side, part in enumerate(sides_of(text))]
    pieces = [" " + " ".join(_TOKEN.findall(text.lower())) for _, _, text in sides]
    codes = np.frombuffer(("".join(pieces) + " ").encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    piece = np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])
    piece = np.append(piece, len(pieces) - 1)
    power = np.cumprod(np.full(len(codes), _BASE, np.uint64))
    inverse = np.cumprod(np.full(len(codes), _INVERSE, np.uint64))
    prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * power)])

    space = codes == ord(" ")
    before = np.concatenate([[0], np.cumsum(space)])
    starts, hashes = [], []

    def keep(start: Ints, end: Ints, kind: int) -> None:
        starts.append(start)
        hashes.append(((prefix[end] - prefix[start]) * inverse[start]) ^ np.uint64(kind * 0xD6E8FEB86659FD93 % 2**64))

    for length in _CHAR_LENGTHS:
        start = np.arange(max(0, len(codes) - length + 1))
        start = start[before[start + length - 1] == before[start + 1]]
        keep(start, start + length, length)
    gap = np.flatnonzero(space)
    for length in _WORD_LENGTHS:
        start, end = gap[:-length] + 1, gap[length:]
        inside = (piece[start - 1] == piece[end - 1]) & (end > start)
        keep(start[inside], end[inside], -length)

    start = np.concatenate(starts)
    row = np.array([i for i, _, _ in sides], np.uint64)[piece[start]]
    side = np.array([side for _, side, _ in sides], np.uint64)[piece[start]]
    return row, mix(np.concatenate(hashes) + side)


def mix(hashes: Hashes) -> Hashes:
    """Spread a 64-bit hash and keep its upper half (finaliser of splitmix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (hashes ^ (hashes >> np.uint64(31))) >> np.uint64(32)
