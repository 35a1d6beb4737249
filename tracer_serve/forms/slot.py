"""Find the slot of a prompt: the part of the last user message that varies from call to call."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

FEWEST = 20
"""Distinct messages below which a shared beginning may be a coincidence."""

OUTLIERS = 0.05
"""Share of the messages that may lack the wrapper."""

CHAIN = 40
"""Characters that a group of messages must share beyond all others to count as a prompt of its own."""

BRANCH = 0.1
"""Share of the messages that such a group must have; smaller ones are texts that begin alike."""


@dataclass(frozen=True, slots=True)
class Slot:
    r"""The wrapper around a varying text: what every message begins and ends with.

    Examples
    --------
    >>> slot = Slot("Tweet: ", "\nLabel:")
    >>> slot.read("Tweet: what a day\nLabel:"), slot.read("what a day")
    ('what a day', None)
    """

    prefix: str
    suffix: str

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def read(self, message: str) -> str | None:
        """Return the text in the slot; None if the message has another wrapper."""
        fits = message.startswith(self.prefix) and message.endswith(self.suffix) and len(message) >= len(self)
        return message[len(self.prefix) : len(message) - len(self.suffix)] if fits else None


def find_slot(messages: Sequence[str]) -> Slot | None:
    r"""Return the wrapper that the messages of one prompt share, but for a few outliers.

    The wrapper ends at word boundaries: a first letter that the texts happen to share stays with the texts.

    Parameters
    ----------
    messages : last user messages; repeated ones count once

    Returns
    -------
    The longest common prefix, and with it the longest common suffix, of all but `OUTLIERS` of the distinct messages.
    None for fewer than `FEWEST` distinct messages; a `Slot` of two empty strings where nothing is shared.

    Examples
    --------
    >>> find_slot([f"Tweet: number {n} of many\nLabel:" for n in range(100, 130)])
    Slot(prefix='Tweet: number ', suffix=' of many\nLabel:')
    """
    distinct = sorted(set(messages))
    if len(distinct) < FEWEST:
        return None
    first, last = _widest(distinct)
    prefix = distinct[first][: shared(distinct[first], distinct[last])]
    rests = sorted(message[len(prefix) :][::-1] for message in distinct[first : last + 1])
    first, last = _widest(rests)
    suffix = rests[first][: shared(rests[first], rests[last])][::-1]
    found = Slot(prefix, suffix)
    return at_words(found, [text for message in distinct if (text := found.read(message)) is not None])


def split_prompts(messages: Sequence[str]) -> list[tuple[Slot, list[str]]]:
    """Separate the messages of several prompts, each with its own wrapper.

    A group of messages (at least `FEWEST` and a share of `BRANCH`) that have `CHAIN` characters more in common than
    all messages is a prompt of its own. What remains is another one. A group too small to judge is left out.

    Returns
    -------
    Each prompt's slot with its distinct messages, the most frequent prompt first.
    """
    found = []
    for block in _blocks(sorted(set(messages))):
        for reversed_block in _blocks(sorted(message[::-1] for message in block)):
            inside = sorted(message[::-1] for message in reversed_block)
            slot = find_slot(inside)
            if slot is not None:
                found.append((slot, inside))
    return sorted(found, key=lambda one: -len(one[1]))


def shared(one: str, other: str) -> int:
    """Return how many characters two strings have in common at their beginning; binary search, as strings are long."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def at_words(slot: Slot, texts: Sequence[str]) -> Slot:
    """Return the slot with its ends moved outwards to word boundaries, so that no word is cut in two."""
    prefix = _whole_words(slot.prefix, sum(text[:1].isalnum() for text in texts) * 2 > len(texts))
    suffix = _whole_words(slot.suffix[::-1], sum(text[-1:].isalnum() for text in texts) * 2 > len(texts))[::-1]
    return Slot(prefix, suffix)


def _whole_words(end: str, continues: bool) -> str:
    """Return a wrapper's end without the word that the texts continue."""
    if not continues:
        return end
    while end and end[-1].isalnum():
        end = end[:-1]
    return end


def _widest(ordered: Sequence[str]) -> tuple[int, int]:
    """Return the window over all but the outliers that shares the longest beginning: its first and last index.

    Strings that share a beginning are neighbours in sorted order, so one window after another is all there is to try.
    """
    size = len(ordered) - math.floor(len(ordered) * OUTLIERS)
    starts = range(len(ordered) - size + 1)
    best = max(starts, key=lambda start: shared(ordered[start], ordered[start + size - 1]))
    return best, best + size - 1


def _blocks(ordered: list[str]) -> list[list[str]]:
    """Return the groups of sorted strings that share much more than the rest does, and the rest.

    A walk down the prefix tree. Strings that share a beginning are neighbours in sorted order.
    """
    found, nodes = list[list[str]](), [ordered]
    while nodes:
        node = nodes.pop()
        depth, rest = shared(node[0], node[-1]) if node else 0, list[str]()
        few = max(FEWEST, math.ceil(BRANCH * len(node)))
        pending = [node]
        while pending:
            for branch in _branches(pending.pop()):
                if len(branch) < few:
                    rest += branch
                elif shared(branch[0], branch[-1]) - depth >= CHAIN:
                    nodes.append(branch)
                else:
                    pending.append(branch)
        if len(rest) >= FEWEST:
            found.append(sorted(rest))
    return found


def _branches(ordered: Sequence[str]) -> Iterator[list[str]]:
    """Yield the groups of sorted strings by the first character after their common beginning."""
    end = shared(ordered[0], ordered[-1]) + 1 if ordered else 0
    for _, branch in groupby(ordered, key=lambda one: one[:end]):
        yield list(branch)
