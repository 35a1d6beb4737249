"""Which calls are the task's own."""

import json
from typing import Any

import pytest

from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.server.chat.recognise import Call, Recogniser
from tracer_serve.server.chat.request import ChatRequest
from tracer_serve.server.http.errors import RefusalError

LABELS = ("red", "blue")
ENUM = {"type": "object", "properties": {"colour": {"enum": ["blue", "red"]}}, "required": ["colour"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "colour", "schema": ENUM}}
TOOL = {"type": "function", "function": {"name": "say", "parameters": ENUM}}
OTHER = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
AROUND = Prompt("Of {labels}, which is <{text}>?", LABELS, {})
SYSTEM = Prompt(None, LABELS, {})


def recogniser(*prompts: Prompt) -> Recogniser:
    return Recogniser("colours", "text", lambda: LABELS, [prompt.messages for prompt in prompts])


def read(messages: Any, model: str = "gpt", of: Recogniser | None = None, **rest: Any) -> Call | None:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    asked = ChatRequest.model_validate_json(json.dumps({"model": model, "messages": messages, **rest}))
    return (of or recogniser(AROUND, SYSTEM)).read(asked)


def text_of(call: Call | None) -> Any:
    return None if call is None else call.text


def test_the_models_name_makes_it_this_tasks_call() -> None:
    """The text is the last message, also behind examples and in parts."""
    shots = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "red"}]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert text_of(read("a rose", "colours")) == "a rose"
    assert text_of(read([*shots, {"role": "user", "content": parts}], "colours")) == "a\nb"


@pytest.mark.parametrize("prompt", [AROUND, SYSTEM])
def test_the_teachers_prompt_makes_it_this_tasks_call(prompt: Prompt) -> None:
    """Under any model name; the text is what stands in the slot, braces and all."""
    for text in ("a rose", "", "{labels} <b>?", "two\nlines", "Of red, blue, which is <x>?"):
        assert text_of(read(prompt.messages(text))) == text
    system, *rest = SYSTEM.messages("a rose")
    assert text_of(read([system | {"role": "developer"}, *rest])) == "a rose"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: [{**m[0], "content": m[0]["content"] + "!"}, *m[1:]],
        lambda m: [{**m[0], "role": "assistant"}, *m[1:]],
        lambda m: [*m, {"role": "user", "content": "and why?"}],
        lambda m: m[1:] or [{"role": "user", "content": "Of red, blue, which is"}],
    ],
)
@pytest.mark.parametrize("prompt", [AROUND, SYSTEM])
def test_another_prompt_is_another_call(prompt: Prompt, change: Any) -> None:
    """A word more, another role, a further turn: not this task's."""
    assert read(change(prompt.messages("a rose"))) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": FORMAT},
        {"tools": [TOOL]},
        {"tools": [OTHER, TOOL], "tool_choice": {"type": "function", "function": {"name": "say"}}},
        {"functions": [TOOL["function"]], "function_call": {"name": "say"}},
    ],
)
def test_a_schema_with_the_label_set_makes_it_this_tasks_call(asked: dict[str, Any]) -> None:
    """As response format, tool or function, whatever the order of the labels."""
    assert text_of(read("a rose", **asked)) == "a rose"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"response_format": {"type": "json_object"}},
        {"response_format": FORMAT, "n": 2},
        {"response_format": FORMAT, "logprobs": True},
        {"tools": [TOOL, OTHER]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [OTHER], "response_format": FORMAT},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "grammar"}},
    ],
)
def test_everything_else_is_somebody_elses(asked: dict[str, Any]) -> None:
    """No schema, a model's choice between functions, several answers, probabilities of tokens: passed on."""
    assert read("a rose", **asked) is None


def test_a_schema_does_not_make_a_conversation_this_tasks_call() -> None:
    """After a tool's answer, or with a picture, the last message is no text to classify."""
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "this?"}]
    for messages in ([{"role": "user", "content": picture}], [{"role": "tool", "content": "3"}]):
        assert read(messages, response_format=FORMAT) is None


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [OTHER]}, "tools"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"messages": [{"role": "assistant", "content": "hm"}]}, "messages"),
    ],
)
def test_the_task_says_what_it_cannot_give(asked: dict[str, Any], param: str) -> None:
    """Who names the task is not passed on, but told which field it cannot serve."""
    with pytest.raises(RefusalError) as caught:
        read(asked.pop("messages", "a rose"), "colours", **asked)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_pairs_are_read_from_prompts_and_messages() -> None:
    """As the teacher's prompt writes them, or as a JSON list of two texts."""
    prompt = Prompt(None, LABELS, {})
    pairs = Recogniser("colours", "pair", lambda: LABELS, [prompt.messages])
    pair = ("a rose", "a lake\n\nwide")
    assert text_of(read(prompt.messages(pair), of=pairs)) == pair
    assert text_of(read(prompt.messages(pair)[1:], "colours", of=pairs)) == pair
    assert text_of(read(json.dumps(pair), "colours", of=pairs)) == pair
    for said in ("a rose", '["a"]', "[" * 100_000):
        with pytest.raises(RefusalError, match="pair"):
            read(said, "colours", of=pairs)


def test_a_text_full_of_the_prompts_own_words_is_ambiguous() -> None:
    """It is refused, after one pass over it: backtracking over these would not end in this test's lifetime."""
    pairs = Recogniser("colours", "pair", lambda: LABELS, [Prompt("{text}!", LABELS, {}).messages])
    with pytest.raises(RefusalError, match="pair"):
        read("Text 1:\n" + "\n\nText 2:\n" * 200_000, "colours", of=pairs)
