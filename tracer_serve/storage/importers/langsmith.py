"""Read LangSmith exports: runs with their inputs and outputs, and examples of a dataset.

Source: LangSmith, "Bulk export of trace data" and "Run (span) data format"; LangChain's serialised messages.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tracer_serve.storage.importers.extract import first, mapping
from tracer_serve.storage.importers.items import RawTrace, Record, RefusedError, SkippedError

_ROLES = {"human": "user", "ai": "assistant"}
_TEXTS = ("input", "text", "query", "prompt", "message", "question")


def langsmith(record: Record) -> Iterator[RawTrace]:
    """Read a run that called a model, or an example of a dataset."""
    kind = record.get("run_type") or "llm"
    if kind != "llm":
        raise SkippedError(f"a {kind}, not a call of a model")
    if record.get("error"):
        raise SkippedError("the run failed")
    inputs, outputs = mapping(record["inputs"]), mapping(record["outputs"])
    usage = {name: count for name, count in record.items() if name in ("prompt_tokens", "completion_tokens")}
    model = first(mapping(outputs.get("llm_output")), "model_name") or first(outputs, "model")
    cost, when = record.get("total_cost"), first(record, "start_time", "created_at")
    yield RawTrace(_asked(inputs), _answered(outputs), model, when, usage, cost)


def _asked(inputs: Mapping[str, Any]) -> Any:
    """Return the messages of a run, or the only text of its inputs."""
    messages = inputs.get("messages")
    if isinstance(messages, list) and messages:
        listed = messages[0] if isinstance(messages[0], list) else messages  # LangChain's models take batches
        return [_message(one) for one in listed]
    found = first(inputs, *_TEXTS)
    if found is None and len(inputs) != 1:
        raise RefusedError(f"no text among the fields of its inputs: {', '.join(map(repr, inputs)) or 'none'}")
    return next(iter(inputs.values())) if found is None else found


def _answered(outputs: Mapping[str, Any]) -> Any:
    """Return the model's answer, from LangChain's generations or from the outputs themselves."""
    generations = outputs.get("generations")
    if not isinstance(generations, list) or not generations:
        return dict(outputs) or None
    one = generations[0][0] if isinstance(generations[0], list) else generations[0]
    return _message(one["message"]) if one.get("message") else one.get("text")


def _message(given: Any) -> Any:
    """Return a serialised LangChain message as a chat message with its role."""
    said = mapping(given)
    inside = mapping(said.get("kwargs") or said.get("data")) or said
    kind = str(inside.get("type") or said.get("type"))
    role = inside.get("role") or _ROLES.get(kind, kind)
    calls = inside.get("tool_calls") or mapping(inside.get("additional_kwargs")).get("tool_calls")
    message = {"role": role, "content": inside.get("content") or None}
    return message | {"tool_calls": [_call(call) for call in calls]} if calls else message


def _call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool call in OpenAI's form; LangChain's has `args` in place of `function`."""
    return {"function": {"arguments": json.dumps(call["args"])}} if "args" in call else call
