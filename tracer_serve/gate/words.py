"""Normalise a text to its words, so that equal messages compare equal."""

import unicodedata

from tracer_serve.types import Text


class _Letters(dict[int, str]):
    """Table for `str.translate`: keeps letters, digits and their marks, and replaces the rest by spaces."""

    def __missing__(self, code: int) -> str:
        character, kind = chr(code), unicodedata.category(chr(code))
        mark = kind[0] == "M" and not unicodedata.name(character, "").startswith("VARIATION SELECTOR")  # of an emoji
        return self.setdefault(code, character if mark or character == "_" or character.isalnum() else " ")


_LETTERS = _Letters({ord("'"): "", ord("\u2019"): ""})  # don't and dont are one word
_SIDES = "|"


def words_of(text: Text) -> list[str]:
    """Return the words in order, without case, punctuation and differences of encoding; of a pair, both sides.

    Examples
    --------
    >>> words_of("Where's my CARD?"), words_of(("A", "b!"))
    (['wheres', 'my', 'card'], ['a', '|', 'b'])
    """
    if isinstance(text, tuple):
        return [*words_of(text[0]), _SIDES, *words_of(text[1])]
    return unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS).split() or [text]
