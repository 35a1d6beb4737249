"""Error responses in the format of OpenAI and Anthropic, without internal details."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tracer_serve.errors import (
    BadInputError,
    BudgetError,
    EmbedderError,
    EndpointError,
    StoreError,
    TeacherError,
    TracerServeError,
)

_log = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed"}
_MISTAKE = "invalid_request_error"
_ANTHROPIC = "/v1/messages/"
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_INSIDE = (StoreError, EmbedderError)  # their messages name paths and hosts
_OF_THE_INSIDE = "a part of this service does not respond; its log has the details"
_WORDS = {404: "no such route; /docs.json lists the routes", 405: "this route does not accept this method"}


class RefusalError(TracerServeError):
    """Refusal of a request, with its HTTP status.

    Parameters
    ----------
    status : HTTP status
    param : name of the wrong field, if a single one is wrong
    headers : headers of the answer
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = BadInputError.code,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.reason, self.param, self.headers = status, code, param, headers or {}
        super().__init__(message)


def error_object(error: TracerServeError) -> dict[str, Any]:
    """Return the value of ``error`` in an OpenAI error body."""
    status = status_of(error)
    message = str(error)
    if isinstance(error, _INSIDE):
        message = _OF_THE_INSIDE
    elif isinstance(error, TeacherError) and not isinstance(error, BudgetError):
        # its message may name hosts and quote their answers; the log has it
        message = f"the teacher gave no usable label: {error.reason.replace('_', ' ')}"
    return {
        "message": message,
        "type": _type_of(status),
        "param": error.param if isinstance(error, RefusalError) else None,
        "code": error.reason if isinstance(error, RefusalError) else error.code,
    }


def status_of(error: TracerServeError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, RefusalError) else error.http_status


def respond(error: TracerServeError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response; a temporary error has Retry-After."""
    status = status_of(error)
    extra = dict(error.headers if isinstance(error, RefusalError) else {}) | dict(headers or {})
    if status in (429, 503):
        wait = error.retry_after_s if isinstance(error, EndpointError) else None
        extra.setdefault("retry-after", str(max(1, math.ceil(wait or 1.0))))
    return _response(error_object(error), status, extra)


async def on_refusal(_: Request, error: Exception) -> Response:
    """Handle an error that this package raises."""
    assert isinstance(error, TracerServeError)
    if isinstance(error, _INSIDE):
        _log.error("a request failed: %s", error)
    return respond(error)


async def on_http(_: Request, error: Exception) -> Response:
    """Handle an error of Starlette: no such route, no such method."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    body = {
        "message": _WORDS.get(status, error.detail),
        "type": _type_of(status),
        "param": None,
        "code": _CODES.get(status, BadInputError.code),
    }
    return _response(body, status, dict(error.headers or {}))


async def on_unexpected(_: Request, __: Exception) -> Response:
    """Handle an unexpected exception without showing it; the server's log has the traceback."""
    return respond(TracerServeError("an internal error occurred; the server's log has the details"))


def _type_of(status: int) -> str:
    if status in (401, 403):
        return "permission_error" if status == 403 else "authentication_error"  # noqa: PLR2004
    return _MISTAKE if status < 500 else "server_error"  # noqa: PLR2004


def _response(error: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return _ErrorResponse(error, status, headers)


class _ErrorResponse(Response):
    """Error response in the format of the API: OpenAI's, or below ``/v1/messages`` Anthropic's."""

    media_type = "application/json"

    def __init__(self, error: dict[str, Any], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(json.dumps({"error": error}), status, headers)
        self._error, self._given = error, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        if _ANTHROPIC in f"{scope['path']}/":
            status = self.status_code
            kind = _ANTHROPIC_TYPES.get(status, "api_error" if _type_of(status) == "server_error" else _MISTAKE)
            error = {"type": kind, "message": self._error["message"]}
            body = json.dumps({"type": "error", "error": error, "request_id": None})
            await Response(body, self.status_code, self._given, self.media_type)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
