"""Detect texts made from one template: a log template miner, similar to Drain.

Texts of one template ("hi this is NAME, my parcel to CITY is late") are answered alike, so they are not independent.
The miner reads no labels, so grouping costs effective rows only.

Source: He et al., Drain: an online log parsing approach with fixed depth tree, ICWS 2017. Drain compares a message with
the templates that begin with the same words; here it is compared with all templates of its length at once, so that a
slot may be anywhere. Slots whose number of words varies are found only where enough other words keep their places.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from tracer_serve.gate.words import words_of
from tracer_serve.types import Ints, Text

SIMILARITY = 0.7  # share of words in place; Banking77's 10,003 texts form 8,900 groups, with .6 8,300
_NUMBER, _SLOT = "0", 0  # is itself masked as a number
_LONG = 32  # characters of a long word with its space
_FEW = 2_000  # templates of one length that are all compared: faster than an index
_FRAME = 3  # words that make a template; in shorter texts the numbers are what is said


def masked_words(text: Text, most: int | None = None) -> list[str]:
    """Return the words of a text, numbers and codes as one word where enough words remain.

    Masking the words again, joined by spaces, changes nothing.

    Parameters
    ----------
    most : maximum number of words; the rest of a long text is not read. None: all

    Examples
    --------
    >>> masked_words("Order 7711: where IS it?"), masked_words("Code 7711")
    (['order', '0', 'where', 'is', 'it'], ['code', '7711'])
    """
    if most is not None:
        joined = text if isinstance(text, str) else " ".join(text)
        text = joined[: most * _LONG]
    words = words_of(text)[:most]
    masked = [word if _is_word(word) else _NUMBER for word in words]
    return masked if len(words) - masked.count(_NUMBER) >= _FRAME else words


def template_of(text: Text) -> str:
    """Return the key of a text's template without looking at other texts: its words, numbers and codes masked.

    Examples
    --------
    >>> template_of("Your code is 7711.") == template_of("your code is 9Z02")
    True
    """
    return " ".join(masked_words(text))


def template_ids(texts: Sequence[Text], similarity: float = SIMILARITY) -> Ints:
    """Give each text the number of its template, shape (n,), counted from 0 in order of appearance.

    Parameters
    ----------
    similarity : least share of a text's words that a template has at the same places

    Examples
    --------
    >>> template_ids(["hi this is Ann from Rome", "hi this is Bob from Rome", "close my account now"]).tolist()
    [0, 0, 1]
    """
    keys: dict[tuple[str, ...], int] = {}
    vocabulary = {_NUMBER: _SLOT}
    number = np.array([keys.setdefault(tuple(masked_words(text)), len(keys)) for text in texts], np.int64)
    miner = _Miner(similarity)
    found = np.empty(len(keys), np.int64)
    for key, place in keys.items():
        codes = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in key], np.int32)
        found[place] = miner.add(codes, alone=sum(map(_is_word, key)) < _FRAME)
    return _in_order(found[number])


def _is_word(word: str) -> bool:
    return 2 * sum(map(str.isdigit, word)) <= len(word)


def _in_order(ids: Ints) -> Ints:
    """Return the groups renumbered from 0 in order of appearance."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@dataclass(slots=True)
class _Miner:
    """Template miner: the templates found so far, by number of words."""

    similarity: float
    count: int = 0
    _of: dict[int, "_SameLength"] = field(default_factory=dict)

    def add(self, words: Ints, *, alone: bool) -> int:
        """Return the template of a text, which widens to cover it; a text that is `alone` is its own."""
        if alone:
            self.count += 1
            return self.count - 1
        known = self._of.setdefault(len(words), _SameLength(len(words)))
        place = known.nearest(words, self.similarity)
        if place is None:
            known.append(words, self.count)
            self.count += 1
            return self.count - 1
        known.widen(place, words)
        return known.ids[place]


@dataclass(slots=True)
class _SameLength:
    """Templates of the same number of words, as an array of word numbers; 0 is a slot.

    A template within k words of a text has one of k + 1 blocks of words in common with it (pigeonhole principle), so
    only the templates that share a block are compared.
    """

    length: int
    ids: list[int] = field(default_factory=list)
    _words: Ints = field(init=False)
    _by_block: dict[int, dict[int, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._words = np.empty((8, self.length), np.int32)

    def nearest(self, words: Ints, similarity: float) -> int | None:
        """Return the place of the most similar template; None if none is similar enough."""
        needed = math.ceil(similarity * np.count_nonzero(words))
        places = self._sharing(words, self.length - needed + 1)
        if not self.ids or (places is not None and not len(places)):
            return None
        rows = self._words[: len(self.ids)] if places is None else self._words[places]
        same = ((rows == words) & (words != _SLOT)).sum(axis=1)
        best = int(same.argmax())
        if same[best] < needed:
            return None
        return best if places is None else int(places[best])

    def append(self, words: Ints, number: int) -> None:
        """Add a template."""
        if len(self.ids) == len(self._words):
            self._words = np.concatenate([self._words, np.empty_like(self._words)])
        self._words[len(self.ids)] = words
        for blocks, index in self._by_block.items():
            _add(index, words, blocks, len(self.ids))
        self.ids.append(number)

    def widen(self, place: int, words: Ints) -> None:
        """Turn the words that differ into slots."""
        self._words[place, self._words[place] != words] = _SLOT

    def _sharing(self, words: Ints, blocks: int) -> Ints | None:
        """Return the places, ascending, of the templates that share a block with a text; None to compare all."""
        if len(self.ids) <= _FEW:
            return None
        index = self._by_block.get(blocks)
        if index is None:
            index = self._by_block[blocks] = {}
            for place in range(len(self.ids)):
                _add(index, self._words[place], blocks, place)
        sharing = [index[key] for key in _keys(words, blocks) if key in index]
        if 4 * sum(map(len, sharing)) > len(self.ids):
            return None
        return np.array(sorted({*chain.from_iterable(sharing)}), np.int64)


def _keys(words: Ints, blocks: int) -> Iterator[int]:
    """Yield a hash of each block of words that has no slot."""
    for start in range(blocks):
        block = words[start::blocks]
        if block.all():
            yield hash((start, block.tobytes()))


def _add(index: dict[int, list[int]], words: Ints, blocks: int, place: int) -> None:
    for key in _keys(words, blocks):
        index.setdefault(key, []).append(place)
