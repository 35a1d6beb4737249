"""What the service says about itself: models, OpenAPI, and the schema BentoML's clients ask for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tracer_serve.config.load import Task
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.openapi import openapi
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.server.routes.response_models import ClassifyResponse


def models(request: Request) -> Response:
    """Answer with the one model there is: the task."""
    return JSONResponse(listed([runtime_of(request).task]))


def one_model(request: Request) -> Response:
    """Answer with the model that is named."""
    return JSONResponse(named([runtime_of(request).task], request.path_params["name"]))


def listed(tasks: Sequence[Task]) -> dict[str, Any]:
    """Return tasks as a list of models, in the words of OpenAI's and of Anthropic's clients."""
    models = [model(task) for task in tasks]
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]}
    return {"object": "list", "data": models, "has_more": False, **ends}


def named(tasks: Sequence[Task], name: str) -> dict[str, Any]:
    """Return the task of a name as a model.

    Raises
    ------
    RefusalError
        404 if there is none.
    """
    for task in tasks:
        if task.spec.name == name:
            return model(task)
    known = ", ".join(repr(task.spec.name) for task in tasks)
    problem = f"there is no model {name[:64]!r} here, only {known}"
    raise RefusalError(404, problem, code="model_not_found", param="model")


def model(task: Task) -> dict[str, Any]:
    """Return a task as a model, in the words of OpenAI's and of Anthropic's clients."""
    name = task.spec.name
    try:
        created = int(task.file.stat().st_mtime)
    except OSError:  # deleted since: it is served all the same
        created = 0
    ours = {"id": name, "object": "model", "created": created, "owned_by": "tracer-serve"}
    when = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    return ours | {"type": "model", "display_name": name, "created_at": when}


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
