"""Template mining: texts that differ in a few words only get one template id (Drain).

P. He, J. Zhu, Z. Zheng and M. R. Lyu, "Drain: an online log parsing approach with fixed depth tree", ICWS 2017. A
template is a list of words, some of them wildcards. A text matches it if both have the same number of words, their
first words are equal, and enough words at the same positions are equal.
"""

from collections import OrderedDict
from collections.abc import Sequence

from tracer_serve.gate.templates import masked_words
from tracer_serve.types import Text

_SIMILARITY = 0.7
_PREFIX = 2  # first words that have to be equal
_COMPARED = 64  # first words of a text that are compared
_PER_LEAF = 100  # templates that one text is compared with at most
_WILDCARD = "<*>"

_Leaf = tuple[int, tuple[str, ...]]


class TemplateMiner:
    """Assign template ids to texts, online; the least recently used templates are forgotten.

    The result depends on earlier texts, and on no label. Not thread-safe.

    Parameters
    ----------
    similarity : share of equal words from which on a text belongs to a template
    most : templates that are kept

    Examples
    --------
    >>> miner = TemplateMiner()
    >>> first = miner.template_of("hi this is Ann, my parcel to Rome is late")
    >>> miner.template_of("hi this is Bob, my parcel to Oslo is late") == first
    True
    >>> miner.template_of("please close my account") == first
    False
    """

    def __init__(self, similarity: float = _SIMILARITY, most: int = 10_000) -> None:
        self._similarity, self._most = similarity, most
        self._words: OrderedDict[str, list[str]] = OrderedDict()
        self._leaves: dict[_Leaf, list[str]] = {}

    def template_of(self, text: Text) -> str:
        """Return the id of the text's template: the words of its first text, numbers masked.

        An id is a text of its template, so another miner finds the same template by it.
        """
        words = masked_words(text, _COMPARED)
        leaf = _leaf_of(words)
        found = self._find(leaf, words)
        if found is not None:
            self._words[found] = [a if a == b else _WILDCARD for a, b in zip(self._words[found], words, strict=True)]
            self._words.move_to_end(found)
            return found
        name = " ".join(words)
        self._words[name] = words
        self._leaves.setdefault(leaf, []).append(name)
        if len(self._words) > self._most:
            self._forget(next(iter(self._words)))
        return name

    def _find(self, leaf: _Leaf, words: Sequence[str]) -> str | None:
        """Return the most similar template of a leaf, the newest of several; None if none is similar enough."""
        best, most = None, self._similarity * len(words)
        for name in self._leaves.get(leaf, ())[-_PER_LEAF:]:
            equal = sum(a == b for a, b in zip(self._words[name], words, strict=True))
            if equal >= most:
                best, most = name, equal
        return best

    def _forget(self, name: str) -> None:
        leaf = _leaf_of(self._words[name])
        self._leaves[leaf].remove(name)
        if not self._leaves[leaf]:
            del self._leaves[leaf]
        del self._words[name]


def _leaf_of(words: Sequence[str]) -> _Leaf:
    return len(words), tuple(words[:_PREFIX])
