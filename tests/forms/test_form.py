"""Forms: fingerprints, slots, descriptions."""

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.forms.form import Form, Turn, split

FORM = Form("chat", "gpt", (Turn("system", "Be brief."),), ("Tweet: ", "\nLabel:"), '{"temperature": 0}', ())


@pytest.mark.parametrize(
    "other",
    [
        {"api": "responses"},
        {"model": "gpt-2"},
        {"turns": (Turn("system", "Be brief!"),)},
        {"turns": (Turn("user", "Be brief."),)},
        {"turns": ()},
        {"around": ("Tweet:", " \nLabel:")},
        {"around": ("Tweet: ", "", "\nLabel:")},
        {"options": "{}"},
        {"media": ("image_url",)},
    ],
)
def test_every_part_of_a_form_is_in_its_fingerprint(other: dict[str, object]) -> None:
    """A form that differs in one part has another fingerprint; JSON and back keeps it."""
    facts = {"api": "chat", "model": "gpt", "turns": FORM.turns, "around": FORM.around, "options": FORM.options}
    changed = Form(**{**facts, **other})  # type: ignore[arg-type]
    assert changed.fingerprint != FORM.fingerprint
    assert Form.of_json(changed.as_json()) == changed
    assert Form.of_json(changed.as_json()).fingerprint == changed.fingerprint


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    """Stored fingerprints are compared with those of later processes."""
    code = f"from tracer_serve.forms.form import Form, Turn; print(({FORM!r}).fingerprint)"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == FORM.fingerprint


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"api": 1}', "[" * 100_000])
def test_what_is_no_form_is_one_error(text: str) -> None:
    """Adopted forms are read from the store, where anything may be."""
    with pytest.raises(ValueError, match="no form"):
        Form.of_json(text)


@given(st.text(), st.text(), st.text())
def test_split_gives_back_what_was_put_in_the_slot(before: str, text: str, after: str) -> None:
    """Whatever the prefix, the suffix and the text are."""
    assert split(FORM.wrapped(before, after), before + text + after) == text


@pytest.mark.parametrize(
    "message", ["", "Tweet: ", "Label:", "Tweet: x\nLabel: ", " Tweet: x\nLabel:", "Tweet:\nLabel:"]
)
def test_another_wrapper_has_no_slot(message: str) -> None:
    """A character more or less is another wrapper; prefix and suffix may not overlap."""
    assert split(FORM, message) is None
    assert split(FORM.wrapped("aba", "aba"), "ababa") is None


def test_a_pair_has_two_slots() -> None:
    """What stands between them may not occur in a text: that would be ambiguous."""
    pairs = FORM.wrapped("1: ", " 2: ", "")
    assert split(pairs, "1: a rose 2: a lake") == ("a rose", "a lake")
    assert split(pairs, "1: a rose 2: a 2: lake") is None
    assert split(pairs, "1: a rose") is None


def test_splitting_takes_linear_time() -> None:
    """A message of many megabytes that is made of the wrapper's own words is no problem."""
    started = time.monotonic()
    split(FORM.wrapped("a" * 1_000, "a" * 1_000, "a" * 1_000), "a" * 8_000_000)
    assert time.monotonic() - started < 2


def test_a_description_shows_no_prompt_unless_it_can_redact_it() -> None:
    """Lengths always, excerpts only through the redactor."""
    secret = Form(
        "chat", "gpt", (Turn("system", "The code is 1234."), Turn("user", "hi")), options=json.dumps({"tools": []})
    )
    assert "1234" not in secret.describe()
    assert "17 characters" in secret.describe()
    assert "1 earlier turn" in secret.describe()
    assert "with tools" in secret.describe()
    assert "The code is ####." in secret.describe(lambda said: said.replace("1234", "####"))
