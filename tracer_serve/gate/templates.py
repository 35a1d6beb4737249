"""Find texts that were made from one template: a log template miner in the manner of Drain.

Texts of one template ("hi this is NAME, my parcel to CITY is late") are answered alike, so they are no independent
evidence. The miner looks at no label: grouping costs effective rows and nothing else.

Source: He et al., Drain: an online log parsing approach with fixed depth tree, ICWS 2017. Drain compares a message with
the templates that begin with the same words; here it is compared with all templates of its length at once, so that a
slot may stand anywhere. Slots whose number of words varies are found only where enough other words keep their places.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tracer_serve.gate.words import words_of
from tracer_serve.types import Ints, Text

SIMILARITY = 0.7  # share of words in place; Banking77's 10,003 texts form 8,900 groups, with .6 8,300
_NUMBER, _SLOT = "<number>", 0
_FRAME = 3  # words that make a template; in shorter texts the numbers are what is said


def masked_words(text: Text) -> list[str]:
    """Return the words of a text, numbers and codes as one word where enough words remain.

    Examples
    --------
    >>> masked_words("Order 7711: where IS it?"), masked_words("Code 7711")
    (['order', '<number>', 'where', 'is', 'it'], ['code', '7711'])
    """
    words = words_of(text)
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
    return word != _NUMBER and 2 * sum(map(str.isdigit, word)) <= len(word)


def _in_order(ids: Ints) -> Ints:
    """Return the groups renumbered from 0 in order of appearance."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@dataclass(slots=True)
class _Miner:
    """Templates found so far, by number of words."""

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
    """Templates of the same number of words, as an array of word numbers; 0 is a slot."""

    length: int
    ids: list[int] = field(default_factory=list)
    _words: Ints = field(init=False)

    def __post_init__(self) -> None:
        self._words = np.empty((8, self.length), np.int32)

    def nearest(self, words: Ints, similarity: float) -> int | None:
        """Return the place of the most similar template, None where none is similar enough."""
        if not self.ids:
            return None
        same = ((self._words[: len(self.ids)] == words) & (words != _SLOT)).sum(axis=1)
        best = int(same.argmax())
        return best if same[best] >= similarity * np.count_nonzero(words) else None

    def append(self, words: Ints, number: int) -> None:
        """Add a template."""
        if len(self.ids) == len(self._words):
            self._words = np.concatenate([self._words, np.empty_like(self._words)])
        self._words[len(self.ids)] = words
        self.ids.append(number)

    def widen(self, place: int, words: Ints) -> None:
        """Turn the words that differ into slots."""
        self._words[place, self._words[place] != words] = _SLOT
