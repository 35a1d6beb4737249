"""Redact e-mail addresses, telephone numbers and payment card numbers by pattern."""

import re

from tracer_serve.components.registry import redactors

_EMAIL = re.compile(r"[\w.+%'-]{1,64}@(?:[^\W_][\w-]*\.)+[^\W\d_]{2,24}")
_DIGITS = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d[\d ()./-]{5,24}\d(?![\w])")
_CARD_LENGTHS = range(13, 20)  # ISO/IEC 7812
_PHONE_LENGTHS = range(7, 16)  # E.164 has at most 15; fewer than 7 are more likely an amount or an order number
_DATE = re.compile(r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?: \d{1,2})?")


@redactors.register("pii")
class Pii:
    """Replace personal data by ``[email]``, ``[phone]`` or ``[card]``. Names and postal addresses stay.

    Parameters
    ----------
    email, phone, card : what to replace; a card has 13 to 19 digits with the right check digit (Luhn), a telephone
        number 7 to 15 digits that are written in groups or begin with ``+``, ``00`` or ``0``

    Examples
    --------
    >>> Pii().redact("I am ann@mail.example, +44 20 7946 0018, card 4111 1111 1111 1111, order 1234567")
    'I am [email], [phone], card [card], order 1234567'
    """

    def __init__(self, *, email: bool = True, phone: bool = True, card: bool = True) -> None:
        self.email, self.phone, self.card = email, phone, card

    def redact(self, text: str) -> str:
        """Return the redacted text."""
        if self.email:
            text = _EMAIL.sub("[email]", text)
        return _DIGITS.sub(self._number, text) if self.phone or self.card else text

    def _number(self, match: re.Match[str]) -> str:
        found = match[0]
        digits = "".join(filter(str.isdecimal, found))
        if len(digits) in _CARD_LENGTHS and _luhn(digits):
            return "[card]" if self.card else found
        grouped = any(not char.isdecimal() for char in found) and not _DATE.fullmatch(found)
        if self.phone and len(digits) in _PHONE_LENGTHS and (grouped or digits[0] == "0"):
            return "[phone]"
        return found


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + i % 2) for i, digit in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0  # noqa: PLR2004
