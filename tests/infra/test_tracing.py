"""Spans of requests and teacher calls, and log lines that belong to them."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.server.worlds import DEFERRED, HANDLED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.infra import tracing as telemetry
from tracer_serve.server.http import request_tracing as tracing

pytestmark = pytest.mark.anyio
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def ask(tmp_path: Path, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Asks a served task about a text, and returns the spans by name, the last of a name."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    exporter, start = InMemorySpanExporter(), telemetry.start
    monkeypatch.setattr(telemetry, "start", lambda task: start(task, exporter))
    spec = make_task(tmp_path, stub_llm)
    make_version(spec)

    async def asking(text: str) -> dict[str, Any]:
        async with serving(spec) as (client, _):
            await client.post("/v1/classify", json={"input": text}, headers=PARENT)
        return {span.name: span for span in exporter.get_finished_spans()}

    yield asking
    assert telemetry.propagated() == {}  # nothing is recorded after the end


async def test_a_deferred_request_is_a_span_in_the_callers_trace_with_the_teachers_call_inside(
    ask: Any, stub_llm: StubLLM
) -> None:
    """Names and attributes follow the GenAI conventions; no text is on a span; the teacher's server gets the trace."""
    spans = await ask(DEFERRED)
    request, call = spans["POST /v1/classify"], spans["chat stub-1"]
    assert {f"{span.context.trace_id:032x}" for span in (request, call)} == {TRACE}
    assert request.parent.span_id == 0x00F067AA0BA902B7
    assert call.parent.span_id == request.context.span_id
    assert request.attributes["tracer.decision"] == "deferred"
    assert request.attributes["http.response.status_code"] == 200
    assert request.resource.attributes["tracer.task"] == "colours"
    found = dict(call.attributes)
    assert found["gen_ai.usage.input_tokens"] > 0
    assert found["gen_ai.usage.output_tokens"] > 0
    assert {key: found[key] for key in found if "usage" not in key and "server" not in key} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "stub-1",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.response.model": "stub-1",
        "gen_ai.response.finish_reasons": ("stop",),
    }
    assert DEFERRED not in str([span.to_json() for span in spans.values()])
    assert TRACE in stub_llm.requests[-1]["headers"]["traceparent"]


async def test_a_handled_request_calls_no_model(ask: Any) -> None:
    """One span, with the score."""
    (span,) = (await ask(HANDLED)).values()
    assert span.attributes["tracer.decision"] == "handled"
    assert float(span.attributes["tracer.score"]) <= 1


async def test_a_failed_call_says_why_in_a_bounded_word(ask: Any, stub_llm: StubLLM) -> None:
    """`error.type` is the reason; the server's own words are not on the span."""
    stub_llm.script.append("429")
    call = (await ask(DEFERRED))["chat stub-1"]
    assert call.attributes["error.type"] == "rate_limited"
    assert not call.events
    assert "refused" not in call.to_json()


async def test_texts_are_on_spans_where_that_is_asked_for(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable of the conventions, in their shape."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    found = (await ask(DEFERRED))["chat stub-1"].attributes
    assert json.loads(found["gen_ai.input.messages"])[-1]["parts"] == [{"type": "text", "content": DEFERRED}]
    assert json.loads(found["gen_ai.output.messages"])[0]["parts"][0]["content"] == "blue"


async def test_log_lines_are_json_with_the_trace_of_their_request(
    tmp_path: Path, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line is one JSON object for any message, also without a configured endpoint."""
    monkeypatch.setenv(tracing.FORMAT, "json")
    logger = logging.getLogger("tracer_serve")
    handlers, propagate = logger.handlers, logger.propagate
    tracing.log_as_configured(logger)
    try:
        async with serving(make_task(tmp_path, stub_llm)) as (client, _):
            stub_llm.script.append("500")
            await client.post("/v1/classify", json={"input": DEFERRED}, headers=PARENT)
            logger.warning("a text with\nlines and \x1b[31mcolours")
    finally:
        logger.handlers, logger.propagate = handlers, propagate
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed = next(line for line in lines if "no usable label" in line["message"])
    assert (failed["level"], failed["trace_id"]) == ("warning", TRACE)
    assert any("a text with\nlines" in line["message"] for line in lines)
