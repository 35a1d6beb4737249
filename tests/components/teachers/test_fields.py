"""Teachers that are asked for several fields."""

import json
from typing import Any

import pytest

from tests.components.teachers.conftest import MakeTeacher
from tests.support.stub_llm import StubLLM
from tracer_serve.config.fields import AnswerFields, FieldSpec
from tracer_serve.errors import PluginError, TeacherError

pytestmark = pytest.mark.anyio
FIELDS = AnswerFields(
    {
        "intent": FieldSpec(labels={"card_lost": "gone or stolen", "other": "all else"}),
        "urgent": FieldSpec(type="boolean"),
        "tags": FieldSpec(type="tags", labels=("fraud", "vip")),
        "why": FieldSpec(type="text"),
    }
)
TEXT = "My card was stolen"
SAID = {"intent": "card_lost", "urgent": True, "tags": ["vip", "fraud"], "why": "it says stolen"}
LABEL = '{"intent":"card_lost","tags":["fraud","vip"],"urgent":true}'


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("openai", {"response": "label"}),
        ("openai", {"response": "json_schema"}),
        ("openai", {"response": "json_object"}),
        ("openai", {"response": "tool"}),
        ("openai", {"response": "auto"}),
        ("anthropic", {"response": "tool"}),
        ("anthropic", {"response": "label"}),
    ],
)
async def test_every_format_gives_the_whole_answer(
    stub_llm: StubLLM, teacher: MakeTeacher, kind: str, params: dict[str, Any]
) -> None:
    """The label holds the certified fields; what is said beside them is kept, from the cache too."""
    async with teacher(kind, labels=(), fields=FIELDS, **params) as llm:
        stub_llm.labels = {TEXT: json.dumps(SAID)}
        for _ in range(2):
            answer = await llm.label(TEXT)
            assert (answer.label, answer.others) == (LABEL, {"why": "it says stolen"})
    assert len(stub_llm.requests) == 1


async def test_the_prompt_and_the_schema_name_every_field(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Labels come with their descriptions; the schema requires all fields and allows no other."""
    async with teacher(labels=(), fields=FIELDS, response="json_schema") as llm:
        stub_llm.labels = {TEXT: json.dumps(SAID)}
        await llm.label(TEXT)
    body = stub_llm.requests[0]["body"]
    said = body["messages"][0]["content"]
    assert "- intent: one of card_lost (gone or stolen); other (all else)" in said
    assert "- urgent: true or false" in said
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["intent", "urgent", "tags", "why"]
    assert schema["properties"]["tags"] == {"type": "array", "items": {"type": "string", "enum": ["fraud", "vip"]}}


@pytest.mark.parametrize("said", ["card_lost", "{}", json.dumps(SAID | {"intent": "lost"}), json.dumps([SAID])])
async def test_half_an_answer_is_no_label(stub_llm: StubLLM, teacher: MakeTeacher, said: str) -> None:
    """A missing field, a wrong label and an answer that is no object are errors, never guesses."""
    async with teacher(labels=(), fields=FIELDS, retries=0) as llm:
        stub_llm.labels = {TEXT: said}
        with pytest.raises(TeacherError) as found:
            await llm.label(TEXT)
    assert found.value.reason == "unknown_label"


async def test_other_fields_are_another_teacher(teacher: MakeTeacher) -> None:
    """The fingerprint changes with a field's labels."""
    prints = set()
    for labels in (("a", "b"), ("a", "b", "c")):
        async with teacher(labels=(), fields=AnswerFields({"x": FieldSpec(labels=labels)}), prompt="Say.") as llm:
            prints.add(llm.fingerprint)
    assert len(prints) == 2


async def test_a_prompt_of_labels_does_not_fit_fields(teacher: MakeTeacher) -> None:
    """A slot that nothing fills is an error that names those that are filled."""
    with pytest.raises(PluginError, match=r"nothing fills \{labels\}; \{fields\}, \{text\} are filled"):
        async with teacher(labels=(), fields=FIELDS, prompt="One of {labels}: {text}"):
            pass
