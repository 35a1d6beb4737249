"""Which calls are the task's own: those of a known form, and no others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.worlds import make_task
from tests.support.stub_llm import StubLLM
from tracer_serve.components.factory import make_teacher
from tracer_serve.components.known_forms import make_forms
from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.config.load import Task
from tracer_serve.server.chat.recognise import ForeignCall, Recogniser, TaskCall

LABELS = ("red", "blue")
ENUM = {"type": "object", "properties": {"colour": {"enum": ["blue", "red"]}}, "required": ["colour"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "colour", "schema": ENUM}}
TALKATIVE = {
    **ENUM,
    "properties": {**ENUM["properties"], "reasoning": {"type": "string"}},  # type: ignore[dict-item]
    "required": ["colour", "reasoning"],
}
TOOL = {"type": "function", "function": {"name": "say", "parameters": ENUM}}
OTHER = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
AROUND = "Of {labels}, which is <{text}>?"

Make = Callable[..., Recogniser]


def of(task: Task) -> Recogniser:
    pair = task.spec.input == "pair"
    return Recogniser(task.spec.name, make_forms(task, make_teacher(task)), lambda: LABELS, pair=pair)


@pytest.fixture
def made(tmp_path: Path, stub_llm: StubLLM) -> Make:
    """Recognisers of tasks; `prompt` and `options` are the teacher's, the rest is the YAML's."""

    def make(prompt: str | None = None, options: dict[str, Any] | None = None, **spec: Any) -> Recogniser:
        teacher = {"type": "openai", "base_url": stub_llm.url, "model": "gpt", "prompt": prompt, **(options or {})}
        return of(make_task(tmp_path, stub_llm, teacher=teacher, **spec))

    return make


def read(recogniser: Recogniser, messages: Any, model: str = "gpt", **rest: Any) -> TaskCall | ForeignCall:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return recogniser.read(json.dumps({"model": model, "messages": messages, **rest}).encode())


def text_of(found: TaskCall | ForeignCall) -> Any:
    return found.text if isinstance(found, TaskCall) else None


def reason_of(found: TaskCall | ForeignCall) -> str | None:
    return found.reason if isinstance(found, ForeignCall) else None


def messages_of(prompt: str | None, text: Any) -> list[dict[str, Any]]:
    return Prompt(prompt, sorted(LABELS), {}).messages(text)


def test_a_call_that_names_the_task_is_its_own_if_it_is_a_text_alone(made: Make) -> None:
    """Whatever shape and sampling it asks for; the text may come in parts."""
    parts = [{"type": "text", "text": "a"}]
    assert text_of(read(made(), "a rose", "colours")) == "a rose"
    assert text_of(read(made(), [{"role": "user", "content": parts}], "colours")) == "a"
    for asked in (
        {"temperature": 1},
        {"response_format": FORMAT},
        {"tools": [TOOL]},
        {"guided_choice": ["red", "blue"]},
    ):
        assert text_of(read(made(), "a rose", "colours", **asked)) == "a rose"


def test_naming_the_task_makes_no_other_form_known(made: Make) -> None:
    """A system message, earlier turns and examples ask another question, whatever the model's name."""
    text = {"role": "user", "content": "a rose"}
    shots = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "red"}]
    least = {"role": "system", "content": "Reply with the label that is LEAST fitting."}
    assert reason_of(read(made(), [*shots, text], "colours")) == "earlier_turns"
    assert reason_of(read(made(), [least, text], "colours")) == "unknown_prompt"


@pytest.mark.parametrize("prompt", [AROUND, None])
def test_the_teachers_prompt_makes_it_this_tasks_call(made: Make, prompt: str | None) -> None:
    """The text is what stands in the slot, braces and all; sampling options may be left out."""
    recogniser = made(prompt)
    for text in ("a rose", "", "{labels} <b>?", "two\nlines", "Of blue, red, which is <x>?"):
        assert text_of(read(recogniser, messages_of(prompt, text))) == text
        assert text_of(read(recogniser, messages_of(prompt, text), temperature=0.0)) == text
    system, *rest = messages_of(None, "a rose")
    assert text_of(read(made(), [system | {"role": "developer"}, *rest])) == "a rose"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: [{**m[0], "content": m[0]["content"] + "!"}, *m[1:]], "unknown_prompt"),
        (lambda m: [{**m[0], "role": "assistant"}, *m[1:]], None),
        (lambda m: [*m, {"role": "user", "content": "and why?"}], "earlier_turns"),
        (lambda m: m[1:] or [{"role": "user", "content": "Of blue, red, which is"}], "unknown_prompt"),
    ],
)
@pytest.mark.parametrize("prompt", [AROUND, None])
def test_another_prompt_is_another_call(made: Make, prompt: str | None, change: Any, reason: str | None) -> None:
    """A word more, another role, a further turn: not this task's."""
    found = read(made(prompt), change(messages_of(prompt, "a rose")))
    assert isinstance(found, ForeignCall)
    assert reason in (None, found.reason)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"model": "gpt-5"}, "unknown_model"),
        ({"temperature": 1.0}, "unknown_options"),
        ({"response_format": FORMAT}, "unknown_options"),
        ({"n": 2}, "unknown_options"),
        ({"logprobs": True}, "unknown_options"),
        ({"reasoning_effort": "high"}, "unknown_options"),
    ],
)
def test_the_teachers_prompt_with_another_model_or_other_options_is_another_teacher(
    made: Make, asked: dict[str, Any], reason: str
) -> None:
    """The same words to another model, or another schema around the answer, get other labels."""
    assert reason_of(read(made(), messages_of(None, "a rose"), **asked)) == reason


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": FORMAT},
        {"tools": [TOOL]},
        {"tools": [OTHER, TOOL], "tool_choice": {"type": "function", "function": {"name": "say"}}},
        {"functions": [TOOL["function"]], "function_call": {"name": "say"}},
        {"guided_json": ENUM},
        {"format": ENUM},
        {"guided_choice": ["red", "blue"]},
        {"structured_outputs": {"json": ENUM}},
    ],
)
def test_a_schema_with_the_label_set_makes_no_call_this_tasks_until_its_form_is_named(
    made: Make, asked: dict[str, Any]
) -> None:
    """The enum says which labels there are, not which question is asked; as a form in the YAML the call is known."""
    assert isinstance(read(made(), "a rose", **asked), ForeignCall)
    known = made(forms=[{"name": "bare", "prompt": "{text}", "options": asked}])
    assert text_of(read(known, "a rose", **asked)) == "a rose"
    assert isinstance(read(known, "a rose", "gpt-5", **asked), ForeignCall)
    assert isinstance(read(known, "a rose", **asked, n=2), ForeignCall)


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
def test_everything_else_is_somebody_elses(made: Make, asked: dict[str, Any]) -> None:
    """No schema, a model's choice between functions, several answers, probabilities of tokens: forwarded."""
    assert isinstance(read(made(), "a rose", **asked), ForeignCall)


@pytest.mark.parametrize("model", ["gpt", "colours"])
def test_pictures_and_tool_results_are_no_texts(made: Make, model: str) -> None:
    """After a tool's answer, or with a picture, the last message is no text to classify."""
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "this?"}]
    shown = read(made(), [{"role": "user", "content": picture}], model, response_format=FORMAT)
    called = read(made(), [{"role": "tool", "content": "3"}], model, response_format=FORMAT)
    assert (reason_of(shown), reason_of(called)) == ("unsupported_content", "no_user_text")


@pytest.mark.parametrize(
    ("asked", "culprit"),
    [
        ({"n": 2}, "n is not"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": 5}, "tools is no list"),
        ({"functions": {"a": 1}}, "functions is no list"),
        ({"tools": [OTHER]}, "0 of its fields have the task's labels"),
        ({"response_format": {"type": "grammar"}}, "'grammar'"),
        ({"guided_choice": ["red", "green"]}, "its choices"),
        ({"response_format": FORMAT | {"json_schema": {"schema": TALKATIVE}}}, "reasoning"),
        ({"guided_json": ENUM, "response_format": FORMAT}, "more than one format"),
        ({"messages": [{"role": "assistant", "content": "hm"}]}, "last message"),
    ],
)
def test_what_the_task_cannot_give_is_named(made: Make, asked: dict[str, Any], culprit: str) -> None:
    """A call that names the task and wants more than a label is forwarded; the detail says which part is too much."""
    found = read(made(), asked.pop("messages", "a rose"), "colours", **asked)
    assert isinstance(found, ForeignCall)
    assert culprit in found.detail


def test_a_model_of_the_tasks_name_is_the_model(made: Make) -> None:
    """Where the teacher's model has the task's name, a bare call may ask it anything."""
    assert isinstance(read(made(name="gpt"), "a rose", "gpt"), ForeignCall)


def test_a_recorded_call_is_a_form(made: Make, tmp_path: Path) -> None:
    """A file with one call as it is sent, the text replaced; model and options have to be those of the file."""
    messages = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Q: {text}\nA:"}]
    body = {"model": "other", "messages": messages, "temperature": 0.2, "guided_json": ENUM}
    (tmp_path / "call.json").write_text(json.dumps(body), encoding="utf-8")
    recogniser = made(forms=[{"name": "sorted", "request": "call.json"}])
    asked = [messages[0], {"role": "user", "content": "Q: a {text} rose\nA:"}]
    found = read(recogniser, asked, "other", temperature=0.2, guided_json=ENUM)
    assert isinstance(found, TaskCall)
    assert (found.known.name, found.text) == ("sorted", "a {text} rose")
    assert found.known.certified_as == found.known.fingerprint
    assert reason_of(read(recogniser, asked, "other", guided_json=ENUM)) == "unknown_options"
    assert reason_of(read(recogniser, asked, "third", temperature=0.2, guided_json=ENUM)) == "unknown_model"


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({}, "either prompt or request"),
        ({"prompt": "{text}", "request": "a.json"}, "either prompt or request"),
        ({"request": "missing.json"}, "missing.json cannot be read"),
        ({"request": "list.json"}, r"list.json"),
        ({"request": "noslot.json"}, r"\{text\} has to be in the last message"),
        ({"prompt": "{text} {text}"}, "once"),
        ({"prompt": "{text}", "same_as": "nobody"}, "nobody"),
        ({"prompt": "{text}", "name": "teacher"}, "is taken"),
    ],
)
def test_a_form_that_cannot_be_read_names_file_and_key(
    made: Make, tmp_path: Path, form: dict[str, Any], problem: str
) -> None:
    """Each mistake in `forms:` is an error of the YAML."""
    from tracer_serve.errors import SpecError  # noqa: PLC0415

    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    noslot = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    (tmp_path / "noslot.json").write_text(json.dumps(noslot), encoding="utf-8")
    with pytest.raises(SpecError, match=problem):
        made(forms=[{"name": "x", **form}])


def test_same_as_names_whose_certificate_covers_a_form(made: Make) -> None:
    """Only where the YAML says so; a chain of them ends at its first form."""
    recogniser = made(
        forms=[
            {"name": "a", "prompt": "A: {text}"},
            {"name": "b", "prompt": "B: {text}", "same_as": "a"},
            {"name": "c", "prompt": "C: {text}", "same_as": "teacher"},
        ]
    )
    found = {form.name: form for form in recogniser.forms}
    assert found["a"].certified_as == found["a"].fingerprint == found["b"].certified_as
    assert found["b"].fingerprint != found["a"].fingerprint
    assert found["native"].certified_as == found["teacher"].certified_as == found["c"].certified_as


def test_pairs_are_read_from_prompts_and_messages(made: Make) -> None:
    """As the teacher's prompt writes them, or as a JSON list of two texts."""
    pairs = made(input="pair")
    pair = ("a rose", "a lake\n\nwide")
    assert text_of(read(pairs, messages_of(None, pair))) == pair
    assert text_of(read(pairs, messages_of(None, pair)[1:], "colours")) == pair
    assert text_of(read(pairs, json.dumps(pair), "colours")) == pair
    for said in ("a rose", '["a"]', "[" * 100_000):
        assert reason_of(read(pairs, said, "colours")) == "unknown_prompt"


def test_a_text_full_of_the_prompts_own_words_is_ambiguous(made: Make) -> None:
    """It is forwarded, after one pass over it: backtracking over these would not end in this test's lifetime."""
    pairs = made("{text}!", input="pair")
    assert reason_of(read(pairs, "Text 1:\n" + "\n\nText 2:\n" * 200_000, "colours")) == "unknown_prompt"


def test_a_conversation_is_its_last_turns(made: Make) -> None:
    """With `input: conversation` the last turns are the text; the system message still has to be a known one."""
    turns = [
        {"role": "user", "content": "long ago"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "my card"},
    ]
    talks = made("Sort.", input="conversation", turns=2)
    system = {"role": "system", "content": "Sort."}
    found = read(talks, [system, *turns])
    assert text_of(found) == "assistant: yes?\nuser: my card"
    assert isinstance(found, TaskCall)
    assert found.known.name == "teacher"
    assert reason_of(read(talks, [system | {"content": "Rhyme."}, *turns])) == "unknown_prompt"
