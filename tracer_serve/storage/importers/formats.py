"""The record formats of common logs: each reader finds prompt, answer and teacher in one record.

Sources: OpenAI API reference (chat completion and response objects, batch input and output, fine-tuning); Langfuse,
"Blob storage export field reference"; LiteLLM, "StandardLoggingPayload specification" and its spend logs;
OpenTelemetry semantic conventions for generative AI (``gen_ai.*``) in OTLP/JSON.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tracer_serve.storage.importers.extract import first, mapping, unquoted
from tracer_serve.storage.importers.items import RawTrace, Record, RefusedError, SkippedError
from tracer_serve.storage.importers.langsmith import langsmith

OPTIONS = frozenset(
    {
        *("response_format", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "text"),
        *("guided_json", "guided_choice", "guided_regex", "guided_grammar", "structured_outputs", "format"),
        *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("n", "logprobs", "top_logprobs", "logit_bias", "stop", "seed", "max_tokens", "max_completion_tokens"),
        *("reasoning_effort", "reasoning", "verbosity", "chat_template_kwargs", "instructions"),
    }
)
"""Fields of a request that shape the answer."""

_PROMPTS = ("messages", "input", "prompt")


def messages(record: Record) -> Iterator[RawTrace]:
    """Read a fine-tuning example: the last message, the assistant's, answers the ones before it."""
    said = unquoted(record["messages"])
    if not isinstance(said, list) or not all(isinstance(message, dict) for message in said):
        raise RefusedError("'messages' is not a list of messages")
    if not said or said[-1].get("role") not in ("assistant", "model"):
        raise RefusedError("the last message is not the assistant's: no label")
    yield RawTrace(
        said[:-1],
        said[-1],
        first(record, "model", "teacher_model"),
        first(record, "created", "timestamp"),
        options=options_of(record),
    )


def completions(record: Record) -> Iterator[RawTrace]:
    """Read stored chat completions and responses: alone with their prompt, or as request and response."""
    request = mapping(first(record, "request", "body"))
    alone = "choices" in record or "output" in record
    answer = record if alone else mapping(first(record, "response", "completion"))
    prompt = first(record, *_PROMPTS) or first(request, *_PROMPTS)
    if prompt is None:
        raise RefusedError("a completion without its prompt: this file has neither 'messages' nor 'input'")
    yield _completed(prompt, answer, record, request)


def _completed(prompt: Any, answer: Mapping[str, Any], record: Record, request: Mapping[str, Any]) -> RawTrace:
    return RawTrace(
        text=prompt,
        label=dict(answer),
        teacher=answer.get("model"),
        when=first(answer, "created", "created_at"),
        usage=mapping(answer.get("usage")),
        user=first(record, "user", "safety_identifier"),
        options=options_of(record) | options_of(request),
    )


def batch(record: Record) -> Iterator[RawTrace]:
    """Read a line of a batch's output, with its request joined as ``request``."""
    if mapping(record.get("error")):
        raise SkippedError(f"the request failed: {mapping(record['error']).get('message', 'error')}")
    response = mapping(record.get("response"))
    if response.get("status_code", 200) != 200:  # noqa: PLR2004
        raise SkippedError(f"the request failed with status {response['status_code']}")
    request = mapping(record.get("request")) or record
    body = mapping(request.get("body"))
    prompt = first(body, *_PROMPTS)
    if prompt is None:
        raise RefusedError("a batch's output has no texts; name its input file too: --requests batch_input.jsonl")
    yield _completed(prompt, mapping(response.get("body")), record, body)


def langfuse(record: Record) -> Iterator[RawTrace]:
    """Read an observation or a trace of a Langfuse export, in camel case or snake case."""
    kind = str(record.get("type") or "GENERATION").upper()
    if kind != "GENERATION":
        raise SkippedError(f"a {kind.lower()}, not a generation")
    cost = first(record, "totalCost", "total_cost", "calculatedTotalCost", "calculated_total_cost")
    yield RawTrace(
        text=record.get("input"),
        label=record.get("output"),
        teacher=first(record, "model", "providedModelName", "provided_model_name"),
        when=first(record, "startTime", "start_time", "timestamp"),
        usage=mapping(first(record, "usageDetails", "usage_details", "usage")),
        cost=cost if cost is not None else mapping(first(record, "costDetails", "cost_details")).get("total"),
        user=first(record, "userId", "user_id"),
        options=options_of(mapping(record.get("input")))
        | options_of(mapping(first(record, "modelParameters", "model_parameters"))),
    )


def litellm(record: Record) -> Iterator[RawTrace]:
    """Read LiteLLM's standard logging payload, or a row of its spend logs."""
    if record.get("status") == "failure":
        raise SkippedError("the request failed")
    if "embedding" in str(record.get("call_type")):
        raise SkippedError("an embedding, not a completion")
    request = mapping(record.get("proxy_server_request"))
    stored = (record.get("messages"), *(request.get(name) for name in _PROMPTS))
    prompt = next((said for said in stored if said not in (None, "", "{}", "[]", {}, [])), None)
    if prompt is None:
        raise RefusedError("has no messages; LiteLLM stores them with store_prompts_in_spend_logs: true")
    yield RawTrace(
        text=prompt,
        label=record.get("response"),
        teacher=record.get("model"),
        when=record.get("startTime"),
        usage={name: record[name] for name in ("prompt_tokens", "completion_tokens") if name in record},
        cost=first(record, "response_cost", "spend"),
        user=first(record, "end_user", "user"),
        options=options_of(request) | options_of(mapping(record.get("model_parameters"))),
    )


def otel(record: Record) -> Iterator[RawTrace]:
    """Read spans of model calls: OTLP/JSON with many spans in a record, or one span and its attributes."""
    spans = list(_spans(record))
    calls = [found for span in spans for found in _call(span)]
    if not calls:
        raise SkippedError("no span of a model call with its messages")
    yield from calls


def _spans(record: Record) -> Iterator[Record]:
    for resource in record.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            yield from scope.get("spans", ())
    if "attributes" in record:
        yield record


def _call(span: Record) -> Iterator[RawTrace]:
    named = _attributes(span.get("attributes"))
    for event in span.get("events") or ():  # the conventions up to 1.36 have the content in events
        named |= _attributes(event.get("attributes"))
    prompt, answer = named.get("gen_ai.input.messages"), named.get("gen_ai.output.messages")
    prompt, answer = prompt or named.get("gen_ai.prompt"), answer or named.get("gen_ai.completion")
    if prompt is None or answer is None:
        return
    usage = {"prompt_tokens": "gen_ai.usage.input_tokens", "completion_tokens": "gen_ai.usage.output_tokens"}
    yield RawTrace(
        text=prompt,
        label=answer,
        teacher=first(named, "gen_ai.response.model", "gen_ai.request.model"),
        when=first(span, "startTimeUnixNano", "start_time"),
        usage={ours: named[theirs] for ours, theirs in usage.items() if theirs in named},
        user=first(named, "enduser.id", "user.id"),
        group=first(named, "gen_ai.conversation.id", "session.id"),
    )


def _attributes(given: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        return dict(given)
    return {entry["key"]: _otlp(entry.get("value")) for entry in given or () if isinstance(entry, dict)}


def _otlp(value: Any) -> Any:
    """Return the value in OTLP's ``{"stringValue": ...}``; nested lists and maps too."""
    kind: str
    content: Any
    kind, content = next(iter(value.items())) if isinstance(value, dict) and value else ("", None)
    if kind == "arrayValue":
        return [_otlp(part) for part in content.get("values", ())]
    if kind == "kvlistValue":
        return {entry["key"]: _otlp(entry.get("value")) for entry in content.get("values", ())}
    return int(content) if kind == "intValue" else content


def options_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that shape the answer; gateways add fields of their own, which are left out."""
    inside = mapping(request.get("extra_body"))  # as OpenAI's Python client takes fields that it does not know
    return {name: value for name, value in {**request, **inside}.items() if name in OPTIONS and value is not None}


def _keys(record: Record) -> tuple[str, ...]:
    return tuple(_attributes(record["attributes"])) if "attributes" in record else ()


def _is_completion(record: Record) -> bool:
    alone = "choices" in record or (record.get("object") == "response" and "output" in record)
    return alone or record.keys() >= {"request", "response"}


Reader = Callable[[Record], Iterator[RawTrace]]
RECORD_FORMATS: dict[str, tuple[Callable[[Record], bool], Reader]] = {
    "otel": (lambda r: "resourceSpans" in r or any(k.startswith("gen_ai.") for k in _keys(r)), otel),
    "litellm": (lambda r: "call_type" in r and ("messages" in r or "response" in r), litellm),
    "batch": (lambda r: "custom_id" in r and "response" in r, batch),
    "completions": (_is_completion, completions),
    "langfuse": (lambda r: bool({"traceId", "trace_id", "projectId", "project_id"} & r.keys()), langfuse),
    "langsmith": (lambda r: {"inputs", "outputs"} <= r.keys(), langsmith),
    "messages": (lambda r: "messages" in r and not {"teacher", "label"} & r.keys(), messages),
}
"""Formats that are recognised by their fields, the most specific first; any other record is plain."""


def moment(value: Any) -> datetime | None:
    """Return a time from ISO 8601, or from seconds, milliseconds, microseconds or nanoseconds since 1970."""
    try:
        if isinstance(value, str) and not value.isdigit():
            when = datetime.fromisoformat(value)
            # times near the ends of the calendar do not exist in UTC
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
        number = float(value)
        for _ in ("ms", "us", "ns"):
            number = number / 1e3 if number > 1e11 else number  # noqa: PLR2004  as seconds, the year 5138
        return datetime.fromtimestamp(number, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
