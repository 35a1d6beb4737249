"""Bodies of chat completions to forms."""

import json
from typing import Any

import pytest

from tracer_serve.forms.calls import NotACallError, parse
from tracer_serve.forms.form import Turn

BODY: dict[str, Any] = {
    "model": "gpt",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a rose"}],
}


def changed(**rest: Any) -> dict[str, Any]:
    return {**BODY, **rest}


@pytest.mark.parametrize(
    "same",
    [
        {"user": "u-1"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"seed": 7, "max_tokens": 20, "metadata": {"a": "b"}, "store": True},
        {"temperature": None, "n": 1, "logprobs": False},
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "a lake"}]},
        {"messages": [BODY["messages"][0], {"role": "user", "content": [{"type": "text", "text": "a lake"}]}]},
    ],
)
def test_what_does_not_change_the_question_is_no_part_of_the_form(same: dict[str, Any]) -> None:
    """Text, user, transport and price vary from call to call of one form."""
    assert parse(changed(**same)).form.fingerprint == parse(BODY).form.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"model": "gpt-2"},
        {"temperature": 0},
        {"n": 2},
        {"logprobs": True},
        {"guided_json": {"type": "object"}},
        {"guided_choice": ["a", "b"]},
        {"format": {"type": "object"}},
        {"never_heard_of": 1},
        {"response_format": {"type": "json_object"}},
        {"messages": BODY["messages"][1:]},
        {"messages": [BODY["messages"][0], {"role": "user", "content": "a rose", "name": "bob"}]},
        {"messages": [BODY["messages"][0], {"role": "user", "content": [{"type": "text", "text": "a"}] * 2}]},
        {"messages": [*BODY["messages"], {"role": "assistant", "content": "red"}]},
        {"messages": [*BODY["messages"], {"role": "user", "content": "a lake"}]},
    ],
)
def test_everything_else_is(other: dict[str, Any]) -> None:
    """Model, options known and unknown, turns, and how the last message is built."""
    assert parse(changed(**other)).form.fingerprint != parse(BODY).form.fingerprint


def test_properties_in_another_order_are_another_schema() -> None:
    """A model writes its answer in the schema's order: with the reason first it answers better."""
    first, second = ({"type": "object", "properties": dict.fromkeys(names)} for names in (("a", "b"), ("b", "a")))
    assert parse(changed(format=first)).form != parse(changed(format=second)).form
    assert parse({**changed(format=first), "temperature": 0}).form == parse(changed(temperature=0, format=first)).form


def test_a_call_without_a_text_in_its_last_message_has_no_message() -> None:
    """Pictures, tool results and an answer that was begun; the kinds are named."""
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "this?"}]
    call = parse(changed(messages=[{"role": "user", "content": picture}]))
    assert (call.message, call.form.media) == (None, ("image_url",))
    assert parse(changed(messages=[*BODY["messages"], {"role": "tool", "content": "3"}])).message is None
    assert parse(changed(messages=[{"role": "user", "content": None}])).message is None


def test_tool_calls_are_part_of_a_turn() -> None:
    """What the model reads of an earlier turn is more than its text."""
    turns = [{"role": "assistant", "content": None, "tool_calls": [{"id": name}]} for name in "ab"]
    first, second = (parse(changed(messages=[turn, BODY["messages"][1]])).form for turn in turns)
    assert first != second
    assert first.turns[0].role == "assistant"


def test_bytes_and_objects_are_read_alike() -> None:
    """A proxy has bytes, an importer has objects."""
    call = parse(json.dumps(BODY).encode())
    assert call == parse(BODY)
    assert (call.message, call.form.turns) == ("a rose", (Turn("system", "Be brief."),))
    assert parse(changed(stream=True)).stream


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"7", b"\xff", b"{}", b'{"model": "m"}', b'{"model": 3, "messages": [{"role": "user"}]}'),
        *(b'{"model": "m", "messages": []}', b'{"model": "m", "messages": "hi"}', b'{"model": "m", "messages": [3]}'),
        b'{"model": "m", "messages": [{"content": "x"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": 3}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "messages": [{"role": "user"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "a", "content": "b"}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_call_is_one_error(body: bytes) -> None:
    """Other JSON, broken JSON, and a field that is there twice, of which servers take the first or the last."""
    with pytest.raises(NotACallError):
        parse(body)


@pytest.mark.parametrize("depth", [100, 400, 600, 900, 5_000])
def test_deep_nesting_is_read_or_refused(depth: int) -> None:
    """No body makes the parser fail in another way."""
    body = json.dumps(BODY)[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}"
    try:
        assert parse(body).form.option_values
    except NotACallError:
        assert depth > 100
