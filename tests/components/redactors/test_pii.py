"""What the built-in redactor takes out, and what it leaves."""

import pytest

from tracer_serve.components.redactors.pii import Pii


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to Ann.O'Neil+x@mail.co.uk, please", "write to [email], please"),
        ("two@x.example;three@y.example", "[email];[email]"),
        ("call +44 20 7946 0018 now", "call [phone] now"),
        ("call (020) 7946-0018.", "call [phone]."),
        ("0049301234567", "[phone]"),
        ("card 4111111111111111", "card [card]"),
        ("card 4111-1111-1111-1111!", "card [card]!"),
        ("amex 3782 822463 10005", "amex [card]"),
    ],
)
def test_what_looks_like_one_is_replaced(text: str, kept: str) -> None:
    """E-mail addresses, telephone numbers and cards go, what is around them stays."""
    assert Pii().redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "order 1234567",
        "12 items",
        "on 2026-11-22",
        "on 22.11.2026",
        "1234567890123456",
        "top-up of 1,250.00",
        "me @ home",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    """Order numbers, dates, amounts and numbers with a wrong check digit are not touched."""
    assert Pii().redact(text) == text


def test_redacting_twice_is_redacting_once() -> None:
    """A redacted text is a fixed point: a replay redacts nothing further."""
    once = Pii().redact("a@b.example +44 20 7946 0018 4111 1111 1111 1111")
    assert Pii().redact(once) == once


def test_each_kind_can_be_left_out() -> None:
    """What is switched off stays."""
    text = "a@b.example, +44 20 7946 0018, 4111 1111 1111 1111"
    assert Pii(email=False, phone=False, card=False).redact(text) == text
    assert Pii(phone=False).redact(text) == "[email], +44 20 7946 0018, [card]"
