"""What the service says about itself: models, OpenAPI, and the schema BentoML's clients ask for."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tracer_serve.config.load import Task
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.openapi import openapi
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.server.routes.response_models import ClassifyResponse


def models(request: Request) -> Response:
    """Answer with the one model there is: the task."""
    return JSONResponse({"object": "list", "data": [model(runtime_of(request).task)]})


def model(task: Task) -> dict[str, Any]:
    """Return a task as OpenAI's clients see a model."""
    try:
        created = int(task.file.stat().st_mtime)
    except OSError:  # deleted since: it is served all the same
        created = 0
    return {"id": task.spec.name, "object": "model", "created": created, "owned_by": "tracer-serve"}


def schema(request: Request) -> Response:
    """Answer in the format of BentoML's own schema route."""
    return JSONResponse(bento_schema(runtime_of(request).task.spec.name, request.app))


def bento_schema(name: str, app: Starlette) -> dict[str, Any]:
    """Return what BentoML's clients read to find a service's methods: `classify`.

    Parameters
    ----------
    app : whose routes are listed
    """
    models = {"input": ClassifyRequest.model_json_schema(), "output": ClassifyResponse.model_json_schema()}
    method = {"name": "classify", "route": "/v1/classify", "batchable": False, "is_task": False}
    paths = {route.path: {"mounted": True} for route in app.routes if isinstance(route, Route)}
    return {"name": name, "type": "service", "routes": [method | models], "paths": paths}


def docs(_: Request) -> Response:
    """Answer with the OpenAPI document."""
    return JSONResponse(openapi())
