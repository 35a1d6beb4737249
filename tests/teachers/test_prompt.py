import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.errors import PluginError
from tracer_serve.teachers._prompt import Prompt, response_format


def test_template_and_text_are_two_messages() -> None:
    """Without a slot for the text the template is the system message and the text, untouched, the user message."""
    messages = Prompt("One of: {labels}", ["a", "b"], {}).messages("Hi {labels}")
    assert messages == [{"role": "system", "content": "One of: a, b"}, {"role": "user", "content": "Hi {labels}"}]


@given(st.text())
def test_a_text_never_fills_slots(text: str) -> None:
    """With a slot for the text the whole is one user message, in which the text stands verbatim."""
    prompt = Prompt("{text} | {labels}", ["a", "b"], {})
    assert prompt.messages(text + "{labels}") == [{"role": "user", "content": f"{text}{{labels}} | a, b"}]


def test_descriptions_are_listed() -> None:
    """Each label stands on a line of its own, with its description where it has one."""
    (system, _) = Prompt(None, ["a", "b"], {"a": "first"}).messages("x")
    assert system["content"].endswith("\n- a: first\n- b")


def test_a_pair_is_two_labelled_parts() -> None:
    """Both texts of a pair are sent, told apart."""
    (_, user) = Prompt(None, ["a"], {}).messages(("A dog runs", "A cat sits"))
    assert user["content"] == "Text 1:\nA dog runs\n\nText 2:\nA cat sits"


def test_braces_that_are_no_slots_stay() -> None:
    """JSON in a template is left alone, and doubled braces make a literal slot."""
    (system, _) = Prompt('Say {"label": "x"} not {{labels}}', ["a"], {}).messages("x")
    assert system["content"] == 'Say {"label": "x"} not {labels}'


def test_a_misspelt_slot_is_refused() -> None:
    """A slot that nothing fills is an error that names it and those there are."""
    with pytest.raises(PluginError, match=r"nothing fills \{label\}; \{labels\}"):
        Prompt("One of {label}", ["a"], {})


@pytest.mark.parametrize("labels", [["a", "b"], []])
def test_the_schema_closes_the_set(labels: list[str]) -> None:
    """The schema asks for one property whose enum is the label set; an open task has no enum."""
    label = response_format(labels)["json_schema"]["schema"]["properties"]["label"]
    assert label.get("enum", []) == labels
