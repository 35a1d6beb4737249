"""What the service says about itself: models, OpenAPI, and the schema BentoML's clients ask for."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracer_serve.config.load import Task
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.openapi import openapi


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
    """Answer in the shape of BentoML's own schema route."""
    paths = {route.path: {"mounted": True} for route in request.app.routes}
    name = runtime_of(request).task.spec.name
    return JSONResponse({"name": name, "type": "service", "routes": [], "paths": paths})


def docs(_: Request) -> Response:
    """Answer with the OpenAPI document."""
    return JSONResponse(openapi())
