"""OpenTelemetry spans of requests, and log lines with trace ids."""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracer_serve.infra import tracing as telemetry
from tracer_serve.infra.log_context import TASK, name_lines

FORMAT = "TRACER_SERVE_LOG_FORMAT"
_TRACED_HEADERS = ("decision", "version", "score", "trace-id")
_KNOWN = frozenset(
    f"/v1/{path}" for path in ("classify", "chat/completions", "responses", "messages", "feedback", "models")
)


def wanted() -> bool:
    """Return whether spans or JSON log lines are configured."""
    return telemetry.configured() or os.environ.get(FORMAT) == "json"


class Tracing:
    """ASGI middleware that records a span per request to ``/v1/*``, and adds its trace id to log lines.

    Parameters
    ----------
    task : name of the task
    """

    def __init__(self, app: ASGIApp, task: str) -> None:
        self._app, self._task = app, task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request within its span."""
        TASK.set(self._task)
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        # bounds the number of span names
        name = f"{scope['method']} {scope['path']}" if scope["path"] in _KNOWN else "/v1"
        with telemetry.request(name, Headers(scope=scope)) as note:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    note({"tracer.task": self._task} | _facts(scope, message))
                await send(message)

            await self._app(scope, receive, noting)


def _facts(scope: Scope, message: Message) -> dict[str, Any]:
    given = Headers(raw=message.get("headers", []))
    facts: dict[str, Any] = {
        "http.request.method": scope["method"],
        "http.response.status_code": message["status"],
        "url.path": scope["path"],
    }
    ours = {name: given.get(f"x-tracer-{name}") for name in _TRACED_HEADERS}
    return facts | {f"tracer.{name.replace('-', '_')}": value for name, value in ours.items() if value is not None}


class JsonLines(logging.Formatter):
    """Log formatter: one line of JSON per record, with texts escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if task := TASK.get():
            line["task"] = task
        if (trace := telemetry.TRACE.get()) is not None:
            line["trace_id"] = trace
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def name_tasks() -> None:
    """Add the task to log lines, for a process that serves several; JSON lines always have it."""
    if os.environ.get(FORMAT) != "json":
        name_lines()


def log_as_configured(logger: logging.Logger) -> None:
    """Log JSON lines to standard error where ``TRACER_SERVE_LOG_FORMAT`` is ``json``."""
    if os.environ.get(FORMAT) != "json":
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger.handlers, logger.propagate = [handler], False
