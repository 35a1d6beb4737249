"""Words of a text in a normal form: what makes two texts the same message."""

import unicodedata

from tracer_serve.types import Text


class _Letters(dict[int, str]):
    """For `str.translate`: letters, digits and the marks that belong to them stay, all else separates words."""

    def __missing__(self, code: int) -> str:
        character, kind = chr(code), unicodedata.category(chr(code))
        mark = kind[0] == "M" and not unicodedata.name(character, "").startswith("VARIATION SELECTOR")  # of an emoji
        return self.setdefault(code, character if mark or character == "_" or character.isalnum() else " ")


_LETTERS = _Letters({ord("'"): "", ord("\u2019"): ""})  # don't and dont are one word
_SIDES = "|"


def words_of(text: Text) -> list[str]:
    """Return the words in order, whatever their case, punctuation and encoding; both sides of a pair.

    Examples
    --------
    >>> words_of("Where's my CARD?"), words_of(("A", "b!"))
    (['wheres', 'my', 'card'], ['a', '|', 'b'])
    """
    if isinstance(text, tuple):
        return [*words_of(text[0]), _SIDES, *words_of(text[1])]
    return unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS).split() or [text]
