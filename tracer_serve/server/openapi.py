"""The OpenAPI document: every route, with what it takes and answers."""

from typing import Any

from tracer_serve import __version__
from tracer_serve.server.chat.request import ChatRequest, MessagesRequest, ResponsesRequest
from tracer_serve.server.dashboard.explain import ExplainRequest
from tracer_serve.server.routes.admin import ApproveRequest, RollbackRequest
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.server.routes.feedback import FeedbackRequest
from tracer_serve.server.routes.response_models import (
    ChatCompletion,
    ClassifyResponse,
    ErrorBody,
    FeedbackResponse,
    MessagesAnswer,
    MessagesError,
    ResponsesAnswer,
)

_MODELS = (
    *(ChatCompletion, ChatRequest, ClassifyRequest, ClassifyResponse),
    *(ResponsesAnswer, ResponsesRequest, MessagesAnswer, MessagesError, MessagesRequest),
    *(ApproveRequest, ErrorBody, ExplainRequest, FeedbackRequest, FeedbackResponse, RollbackRequest),
)


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every route."""
    schemas: dict[str, Any] = {}
    for model in _MODELS:
        document = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= document.pop("$defs", {})
        schemas[model.__name__] = document
    return {
        "openapi": "3.1.0",
        "info": {"title": "tracer-serve", "version": __version__},
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {name: {"type": "http", "scheme": "bearer"} for name in ("admin", "key")},
        },
    }


def _paths() -> dict[str, Any]:
    asked, body_errors = (401, 403, 429), (400, 401, 403, 408, 413, 415)
    admin: dict[str, Any] = {"security": [{"admin": []}]}
    rest = {"name": "path", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
    return {
        "/v1/classify": {
            "post": _operation("Classify one text or many.", (200, "ClassifyResponse"), (*body_errors, 404, 429, 503))
            | _body("ClassifyRequest")
        },
        "/v1/chat/completions": {"post": _call(body_errors, "ChatCompletion") | _body("ChatRequest")},
        "/v1/responses": {"post": _call(body_errors, "ResponsesAnswer") | _body("ResponsesRequest")},
        "/v1/messages": {"post": _call(body_errors, "MessagesAnswer", "MessagesError") | _body("MessagesRequest")},
        "/v1/feedback": {
            "post": _operation(
                "Put a correct label on an answer.", (200, "FeedbackResponse"), (*body_errors, 404, 409, 429, 503)
            )
            | _body("FeedbackRequest")
            | {"parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]}
        },
        "/v1/{path}": {"post": _passed_on() | {"parameters": [rest]}},
        "/v1/explain": {
            "post": _operation("What would become of a text, and why.", errors=(*body_errors, 429, 503))
            | _body("ExplainRequest")
        },
        "/v1/models": {"get": _operation("The task, as a model.", errors=asked)},
        "/v1/models/{name}": {
            "get": _operation("One model.", errors=(*asked, 404)) | {"parameters": [rest | {"name": "name"}]}
        },
        "/livez": {"get": _operation("The process runs.", kind="text/plain")},
        "/readyz": {"get": _operation("Requests are answered.")},
        "/healthz": {"get": _operation("Details, and what is wrong.", errors=(401,))},
        "/metrics": {"get": _operation("Prometheus.", kind="text/plain")},
        "/schema.json": {"get": _operation("The routes, as BentoML shows them.", errors=(401,))},
        "/docs.json": {"get": _operation("This document.", errors=(401,))},
        "/docs": {"get": _operation("This document as a page.", errors=(401,), kind="text/html")},
        "/": {"get": _operation("Dashboard.", errors=(401,), kind="text/html")},
        "/status.json": {"get": _operation("The numbers of the dashboard.", errors=(401,))},
        "/versions/{number}/report.html": {
            "get": _operation("Report of a version.", errors=(401, 404), kind="text/html") | {"parameters": [number]}
        },
        "/versions/compare": {
            "get": _operation("Two versions side by side.", errors=(401, 404), kind="text/html")
            | {"parameters": [_query("a", "integer"), _query("b", "integer")]}
        },
        "/review": {"get": _operation("Review queue.", errors=(401, 403), kind="text/html")},
        "/review.json": {"get": _operation("The rows that this key may judge.", errors=(401, 403, 503))},
        "/review.jsonl": {
            "get": _operation(
                "The queue for a labelling tool.", errors=(400, 401, 403, 503), kind="application/x-ndjson"
            )
            | {"parameters": [_query("format", "string")]},
            "post": _operation("Judgements of a labelling tool, an array or JSON lines.", errors=(*body_errors, 503))
            | {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "array"}}}}},
        },
        "/admin/refit": {"post": _operation("Request a refit.", (202, None), (401, 403, 503)) | admin},
        "/admin/log": {
            "get": _operation("Who did what, newest first.", errors=(400, 401, 403, 503))
            | admin
            | {"parameters": [_query("limit", "integer"), _query("before", "string")]}
        },
        "/admin/approve": {
            "post": _operation("Serve the version that waits for approval.", errors=(*body_errors, 404))
            | admin
            | _body("ApproveRequest")
        },
        "/admin/rollback": {
            "post": _operation("Serve an earlier version.", errors=(*body_errors, 404))
            | admin
            | _body("RollbackRequest")
        },
    }


def _query(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": {"type": kind}}


def _call(errors: tuple[int, ...], answer: str, error: str = "ErrorBody") -> dict[str, Any]:
    """Document a drop-in: what is passed on is answered with whatever the teacher's endpoint answers."""
    said = "Classify the text in this task's calls; pass all others on."
    operation = _operation(said, (200, answer), (*errors, 404, 429, 503), error=error)
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    operation["responses"]["default"] = {"description": "Whatever the teacher's endpoint answered."}
    return operation


def _passed_on() -> dict[str, Any]:
    operation = _operation(
        "Pass on what only the teacher's endpoint knows.", errors=(401, 403, 404, 405, 408, 413, 429, 503)
    )
    operation["responses"]["default"] = {"description": "Whatever the teacher's endpoint answered."}
    return operation


def _operation(
    summary: str,
    success: tuple[int, str | None] = (200, None),
    errors: tuple[int, ...] = (),
    kind: str = "application/json",
    error: str = "ErrorBody",
) -> dict[str, Any]:
    status, name = success
    shape = {"$ref": f"#/components/schemas/{name}"} if name else {}
    responses: dict[str, Any] = {str(status): {"description": "Done.", "content": {kind: {"schema": shape}}}}
    failed = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    responses |= {str(code): {"description": "Refused.", "content": failed} for code in sorted(errors)}
    return {"summary": summary, "responses": responses}


def _body(name: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"requestBody": {"required": True, "content": content}}
