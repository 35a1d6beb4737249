"""Read the answered LLM calls of a log, prompt and options included, to find the tasks among them."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracer_serve.forms.answer_enum import answer_enum
from tracer_serve.forms.calls import NotACallError, parse
from tracer_serve.forms.prompt_group import LONGEST_LABEL, Observed
from tracer_serve.storage.importers.extract import answer_of, at_path, content_of, label_of, unquoted
from tracer_serve.storage.importers.formats import moment
from tracer_serve.storage.importers.items import RawTrace, ReadOptions, Refusal, RefusedError
from tracer_serve.storage.importers.parse import cost_of, read_raw, tokens_of

_USER = ("user", "human")
_LARGEST = 1e300


def read_calls(path: Path, reading: ReadOptions) -> Iterator[Observed | Refusal]:
    """Yield each call of a log, and each line that holds none.

    Raises
    ------
    ImportFileError
        The file as a whole cannot be read.
    """
    for found in read_raw(path, reading):
        if isinstance(found, Refusal):
            yield found
        elif found is not None:
            try:
                yield _observed(found)
            except (NotACallError, RefusedError) as error:
                yield Refusal(0, str(error))


def observed(body: Mapping[str, Any], answer: Any, at: float, usage: Mapping[str, int], cost: float = 0.0) -> Observed:
    """Return a call with the label in its answer.

    Parameters
    ----------
    body : of ``POST /v1/chat/completions`` or ``/v1/responses``
    answer : the completion, the response, or the message in it
    at : seconds since 1970
    usage : ``prompt_tokens``, ``completion_tokens``

    Raises
    ------
    NotACallError
        If the body is no call.
    """
    call = parse(body)
    said = answer_of(answer)
    return Observed(
        call=call,
        label=_label(said, call.form.option_values),
        at=at,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        cost=cost,
        numbers=_numbers(said),
    )


def _observed(found: RawTrace) -> Observed:
    when, model = moment(found.when), found.teacher if isinstance(found.teacher, str) else ""
    prompt = unquoted(found.text)
    inside = prompt if isinstance(prompt, Mapping) else {}
    if "input" in inside and "messages" not in inside:
        body = {**found.options, "model": model, **{k: inside[k] for k in ("input", "instructions") if k in inside}}
    else:
        said = "input" if _is_response(found) else "messages"
        body = {**found.options, "model": model, said: _messages(inside.get("messages", prompt))}
    at = time.time() if when is None else when.timestamp()
    return observed(body, found.label, at, tokens_of(found.usage), cost_of(found.cost))


def _is_response(found: RawTrace) -> bool:
    """Return whether a call was one of the Responses API, by its answer or by fields that only its requests have."""
    answered = isinstance(found.label, Mapping) and "output" in found.label and "choices" not in found.label
    return answered or bool({"instructions", "text"} & found.options.keys())


def _messages(prompt: Any) -> list[dict[str, Any]]:
    """Return a prompt as the messages of a chat."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not all(isinstance(message, dict) for message in prompt):
        raise RefusedError("the prompt is not a text or a list of messages")
    return [_message(message) for message in prompt]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of any log as one of chat completions: its role and its text."""
    said = content_of(message)
    role = message.get("role", message.get("type", "user"))
    kept = {name: message[name] for name in ("tool_calls", "tool_call_id", "name") if message.get(name)}
    content = message.get("content") if said is None else said
    if isinstance(content, list) and not any(isinstance(p, dict) and "image" in str(p.get("type")) for p in content):
        content = said
    return {"role": "user" if role in _USER else role, "content": content, **kept}


def _label(said: Any, options: Mapping[str, Any]) -> str | None:
    """Return the label in an answer: of the schema's enum, else the answer itself where it is short."""
    enum = answer_enum(options)
    try:
        if enum is not None:
            value = at_path(said, ".".join(enum.path)) if enum.path else said
            return value if isinstance(value, str) and value in enum.labels else None
        label = label_of(said)
    except RefusedError:
        return None
    return label if len(label) <= LONGEST_LABEL and label.isprintable() else None


def _numbers(said: Any) -> dict[str, float]:
    fields = said.items() if isinstance(said, Mapping) else ()
    numbers = {name: v for name, v in fields if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: float(v) for name, v in numbers.items() if abs(v) <= _LARGEST}  # others overflow, or are no number
