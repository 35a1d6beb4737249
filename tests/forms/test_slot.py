"""The slot of a prompt is found exactly, whatever the texts share by chance."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tasks import banking
from tracer_serve.forms.slot import Slot, find_slot, split_prompts

TEXTS = banking()[0]
EXAMPLES = [f'Example {n}: "{text}"\n' for n, text in enumerate(TEXTS[1000:1200])]
ASK, END = f"Choose a category.\n{''.join(EXAMPLES)}\nNew question: ", "\n\nAnswer in JSON:"


@pytest.mark.parametrize(
    "slot", [Slot("", ""), Slot("Tweet: ", ""), Slot("", "\nLabel:"), Slot("Text: <", ">"), Slot(ASK, END)], ids=len
)
@pytest.mark.parametrize("rows", [20, 200])
def test_the_slot_of_one_prompt_is_exact(slot: Slot, rows: int) -> None:
    """Prefix and suffix are those that were put around the texts, for few and for many calls."""
    assert find_slot([f"{slot.prefix}{text}{slot.suffix}" for text in TEXTS[:rows]]) == slot


def test_a_few_other_messages_do_not_change_the_slot() -> None:
    """One message in thirty of any other kind is an outlier."""
    messages = [f"{ASK}{text}{END}" for text in TEXTS[:87]] + ["hello", ASK[:500], f"{ASK[:300]}and so on"]
    assert find_slot(messages) == Slot(ASK, END)


def test_few_messages_and_repeated_ones_tell_nothing() -> None:
    """Nineteen distinct messages are too few, however often each of them came."""
    assert find_slot([f"Tweet: {text}" for text in TEXTS[:19]] * 100) is None
    assert find_slot([]) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.text(max_size=60), st.text(max_size=60), st.floats(0.0, 0.8))
def test_texts_that_often_begin_alike_are_not_eaten(seed: int, before: str, after: str, share: float) -> None:
    """A word that up to 80 % of the texts begin or end with stays with the texts, for any wrapper."""
    chance = random.Random(seed)
    texts = [
        f"{'please ' if chance.random() < share else ''}{text}{' thanks' if chance.random() < share else ''}"
        for text in chance.sample(TEXTS, 300)
    ]
    found = find_slot([f"{before}{text}{after}" for text in texts])
    assert found is not None
    # a wrapper that ends in a letter runs into the text: the boundary is then the word's
    assert f"{before}|{after}".startswith(found.prefix)
    assert f"{before}|{after}".endswith(found.suffix)
    assert before.removeprefix(found.prefix).isalnum() or before == found.prefix
    assert after.removesuffix(found.suffix).isalnum() or after == found.suffix


def test_prompts_are_separated() -> None:
    """Prompts that differ before the text, after it, or in both, are found with their own texts."""
    slots = [
        Slot("Is this message rude? Answer with yes or no and nothing else: ", ""),
        Slot("Which product is this message about? Answer with its name: ", ""),
        Slot("", "\n\nIs the message above written by a customer? Answer yes or no."),
        Slot(ASK, END),
    ]
    expected = {
        slot: {f"{slot.prefix}{text}{slot.suffix}" for text in TEXTS[300 * n : 300 * n + 100 + n]}
        for n, slot in enumerate(slots)
    }
    messages = [message for some in expected.values() for message in some]
    random.Random(0).shuffle(messages)
    assert {slot: set(inside) for slot, inside in split_prompts(messages)} == expected


def test_shuffled_examples_are_another_prompt() -> None:
    """Where every tenth call has its few-shot examples in another order, the others' slot stays exact."""
    chance = random.Random(0)
    messages = [f"{ASK}{text}{END}" for text in TEXTS[:270]]
    other = [
        f"Choose a category.\n{''.join(chance.sample(EXAMPLES, len(EXAMPLES)))}\nNew question: {text}{END}"
        for text in TEXTS[270:300]
    ]
    (slot, inside), *rest = split_prompts(messages + other)
    assert (slot, set(inside)) == (Slot(ASK, END), set(messages))
    assert all(len(one) < 100 for one, _ in rest)


def test_texts_that_begin_alike_are_no_prompts() -> None:
    """Real texts, of which dozens begin with the same words, are one group."""
    [(slot, inside)] = split_prompts([f"Question: {text}" for text in TEXTS])
    assert slot == Slot("Question: ", "")
    assert set(inside) == {f"Question: {text}" for text in TEXTS}
