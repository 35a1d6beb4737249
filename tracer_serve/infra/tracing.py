"""OpenTelemetry spans, if an OTLP endpoint is configured; otherwise nothing is imported.

Model calls follow the GenAI semantic conventions (opentelemetry.io/docs/specs/semconv/gen-ai), our own attributes
begin with ``tracer.``. Texts are recorded only if ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is true.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tracer_serve import __version__
from tracer_serve.errors import SpecError, TeacherError

TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""The W3C header that carries a caller's trace id."""

TRACE: ContextVar[str | None] = ContextVar("trace", default=None)
"""Trace id of the current request, 32 hex digits."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_QUIET = {"record_exception": False, "set_status_on_exception": False}  # an exception's message may quote a text
_tracer: Any = None


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """Model name, tokens, finish reason and content of a model's answer."""

    model: str | None
    tokens: Mapping[str, int]
    finish: str | None
    content: str | None


def configured() -> bool:
    """Return whether an OTLP endpoint is configured."""
    return any(map(os.environ.get, _ENDPOINTS)) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def start(task: str, exporter: Any = None) -> Callable[[], None]:
    """Start recording spans; return a function that sends the last spans and stops.

    Parameters
    ----------
    exporter : receives the spans; default: OTLP over HTTP, configured by the ``OTEL_*`` variables

    Raises
    ------
    SpecError
        If the exporter is not installed.
    """
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # 0.1 s to import
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    if exporter is None:
        exporter = _otlp()
    global _tracer  # noqa: PLW0603  # one process, one destination, as in OpenTelemetry's own API
    names = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "tracer-serve"), "tracer.task": task}
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("tracer_serve", __version__)

    def stop() -> None:
        global _tracer  # noqa: PLW0603
        _tracer = None
        provider.shutdown()

    return stop


def _otlp() -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError:
        raise SpecError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but its exporter is not installed:"
            " pip install '.[otel]' in a checkout of tracer-serve"
        ) from None
    return OTLPSpanExporter()


@contextmanager
def request(name: str, headers: Mapping[str, str]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Record a request as a span in the caller's trace; yield a function that adds attributes."""
    given = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if _tracer is None:
        TRACE.set(given["trace"] if given else os.urandom(16).hex())
        yield lambda _: None
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    parent = TraceContextTextMapPropagator().extract({"traceparent": given[0]} if given else {})
    with _tracer.start_as_current_span(name, parent, SpanKind.SERVER, **_QUIET) as span:
        TRACE.set(f"{span.get_span_context().trace_id:032x}")
        yield span.set_attributes


@contextmanager
def model_call(
    model: str, host: str, port: int | None, asked: Mapping[str, Any], provider: str
) -> Iterator[Callable[[ResponseFacts], None]]:
    """Record a model call as a span; yield a function that records its outcome.

    Parameters
    ----------
    asked : the request's body
    provider : as OpenTelemetry's conventions name it
    """
    if _tracer is None:
        yield lambda _: None
        return
    from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415

    attributes = _of_request(model, host, port, asked) | {"gen_ai.provider.name": provider}
    with _tracer.start_as_current_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes, **_QUIET) as span:
        try:
            yield lambda outcome: span.set_attributes(_of_outcome(outcome))
        except TeacherError as error:
            span.set_attribute("error.type", error.reason)
            span.set_status(StatusCode.ERROR, error.reason)
            raise


def propagated() -> dict[str, str]:
    """Return the headers that carry the current trace to a server."""
    carried: dict[str, str] = {}
    if _tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        TraceContextTextMapPropagator().inject(carried)
    return carried


def _of_request(model: str, host: str, port: int | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "server.address": host,
    }
    if port is not None:
        attributes["server.port"] = port
    if "temperature" in asked:
        attributes["gen_ai.request.temperature"] = float(asked["temperature"])
    if _shows_content():
        attributes["gen_ai.input.messages"] = _written([(m["role"], m["content"]) for m in asked["messages"]])
    return attributes


def _of_outcome(outcome: ResponseFacts) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if outcome.model:
        attributes["gen_ai.response.model"] = outcome.model
    if outcome.finish:
        attributes["gen_ai.response.finish_reasons"] = [outcome.finish]
    for ours, theirs in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        if ours in outcome.tokens:
            attributes[f"gen_ai.usage.{theirs}"] = outcome.tokens[ours]
    if _shows_content() and outcome.content is not None:
        attributes["gen_ai.output.messages"] = _written([("assistant", outcome.content)])
    return attributes


def _shows_content() -> bool:
    return os.environ.get(_CONTENT, "").lower() == "true"


def _written(messages: Sequence[tuple[str, str]]) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": said}]} for role, said in messages])
