"""Calls are grouped by their prompt, whatever else comes through the same door."""

import random
from typing import Any

import pytest

from tests.support.tasks import banking
from tracer_serve.forms.answer_enum import AnswerEnum, answer_enum
from tracer_serve.forms.calls import parse
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.forms.prompt_group import SAMPLE, Observed
from tracer_serve.forms.slot import Slot

TEXTS, LABELS = banking()
ASK, END = "Which intent does the customer's message have? One word.\n\nMessage: ", "\n\nIntent:"
RUDE = "Is the following message rude? Answer yes or no.\n\n"


def seen(content: str, label: str | None, *, system: str = "", n: int = 0, **options: Any) -> Observed:
    before = [{"role": "system", "content": system}] if system else []
    body = {"model": "gpt", "messages": [*before, {"role": "user", "content": content}], **options}
    return Observed(parse(body), label, at=float(n), prompt_tokens=10, completion_tokens=1)


def test_prompts_in_one_log() -> None:
    """Prompts in the user message and in the system message are found among chats, each with slot and labels."""
    chance = random.Random(1)
    wrapped = [seen(f"{ASK}{text}{END}", label) for text, label in zip(TEXTS[:300], LABELS[:300], strict=True)]
    rude = [seen(f"{RUDE}{text}", chance.choice(["yes", "no"])) for text in TEXTS[300:500]]
    bare = [seen(text, chance.choice(["a", "b", "c"]), system="Say a, b or c.") for text in TEXTS[500:600]]
    chats = [seen(text, None) for text in TEXTS[600:800]] + [seen(text, text[:9]) for text in TEXTS[800:1000]]
    mixed = [*wrapped, *rude, *bare, *chats]
    chance.shuffle(mixed)
    groups = CallGroups()
    for one in mixed:
        groups.add(one)
    groups.settle()
    found = {group.slot: group for group in groups.tasks()}
    assert {slot: group.totals.calls for slot, group in found.items()} == {
        Slot(ASK, END): 300,
        Slot(RUDE, ""): 200,
        Slot("", ""): 100,
    }
    assert {one.text for one in found[Slot(ASK, END)].examples} == set(TEXTS[:300])
    assert found[Slot(RUDE, "")].label_set == ("no", "yes")
    assert found[Slot("", "")].form.system == ("Say a, b or c.",)
    assert groups.totals.calls == 1000


def test_another_option_is_another_form() -> None:
    """Calls that differ in temperature or schema are never in one group."""
    schema = {"type": "object", "properties": {"label": {"enum": ["x", "y"]}}}
    groups = CallGroups()
    for n, text in enumerate(TEXTS[:80]):
        options: dict[str, Any] = {"temperature": 0} if n % 2 else {"guided_json": schema}
        groups.add(seen(f"{ASK}{text}{END}", "xy"[n // 2 % 2], **options))
    assert sorted(group.totals.calls for group in groups.tasks()) == [40, 40]
    assert len({group.form.fingerprint for group in groups.tasks()}) == 2


def test_the_first_texts_do_not_shape_the_wrapper() -> None:
    """Where the first twenty texts begin alike, the slot is widened once others come, and no text is lost."""
    groups = CallGroups()
    first = [f"please {text}" for text in TEXTS[:20]]
    for text in [*first, *TEXTS[20:60]]:
        groups.add(seen(f"{ASK}{text}{END}", "x"))
    [group] = groups.groups()
    assert group.slot == Slot(ASK, END)
    assert {one.text for one in group.examples} == {*first, *TEXTS[20:60]}


def test_prompts_under_one_system_message_are_separated_later() -> None:
    """A prompt that comes after the bare texts of the same form gets a group of its own."""
    groups = CallGroups()
    for n, text in enumerate(TEXTS[:60]):
        groups.add(seen(text, "xy"[n % 2], system="You are helpful."))
    for n, text in enumerate(TEXTS[60:400]):
        groups.add(seen(f"{RUDE}{text}", "yn"[n % 2], system="You are helpful."))
    groups.settle()
    assert {group.slot for group in groups.groups()} == {Slot("", ""), Slot(RUDE, "")}
    rude = next(group for group in groups.groups() if group.slot.prefix)
    assert set(rude.labels) == {"y", "n"}


def test_memory_is_bounded() -> None:
    """However many calls and forms come, as many texts are kept as are allowed, and a fair sample of them."""
    groups = CallGroups(most_forms=30)
    for n in range(3 * SAMPLE):
        groups.add(seen(f"{ASK}number {n}{END}", "xy"[n % 2]))
    for n in range(200):
        groups.add(seen("hello", "hi", system=f"You talk to user {n}."))
    [group] = groups.tasks()
    assert group.totals.calls == 3 * SAMPLE
    assert len(group.examples) == SAMPLE
    late = sum(int(one.text.split()[-1]) >= 2 * SAMPLE for one in group.examples)
    assert 0.28 < late / SAMPLE < 0.39
    assert len(groups.forms()) <= 30


def test_calls_after_a_restart_are_counted_once() -> None:
    """Counts that were restored grow by one with each call, of the form and overall."""
    before, after = CallGroups(), CallGroups()
    before.add(seen("a", "yes"))
    for form, totals in before.forms():
        after.restore_totals(form, totals)
    after.add(seen("b", "no"))
    assert (after.totals.calls, [totals.calls for _, totals in after.forms()]) == (2, [2])


def test_a_text_that_may_not_be_kept_is_not() -> None:
    """Texts are kept as the redactor leaves them, and not at all where it fails."""
    groups = CallGroups(lambda text: None if "card" in text else text.upper())
    for text in TEXTS[:200]:
        groups.add(seen(f"{ASK}{text}{END}", "x"))
    kept = {one.text for group in groups.groups() for one in group.examples}
    assert kept == {text.upper() for text in TEXTS[:200] if "card" not in text}


@pytest.mark.parametrize(
    "options",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {
            "properties": {"m": {"$ref": "#/$defs/M"}, "why": {"type": "string"}},
            "$defs": {"M": {"enum": ["a", "b"]}}}}}},
        {"tools": [{"function": {"parameters": {"properties": {"m": {"enum": ["a", "b", None]}}}}}]},
        {"guided_json": '{"properties": {"m": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}}}'},
    ],
    ids=["response_format", "tool", "guided_json"],
)  # fmt: skip
def test_the_label_of_a_schema_is_its_only_enum(options: dict[str, Any]) -> None:
    """It is found in every place where callers put a schema; two enums are two questions."""
    assert answer_enum(options) == AnswerEnum(("m",), ("a", "b"))
    two = {"guided_json": {"properties": {"m": {"enum": ["a", "b"]}, "n": {"enum": ["c", "d"]}}}}
    assert answer_enum(two) is None
