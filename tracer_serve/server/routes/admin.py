"""What only the operator may do; without an admin key nobody may."""

import os
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracer_serve.errors import ArtifactError
from tracer_serve.lifecycle.rollback import roll_back
from tracer_serve.lifecycle.triggers import request_refit
from tracer_serve.server.http.api_keys import Keys
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_model
from tracer_serve.serving.runtime import Runtime

KEY = "TRACER_SERVE_ADMIN_KEY"


class RollbackRequest(BaseModel):
    """What to go back to."""

    model_config = ConfigDict(extra="forbid", strict=True, title="RollbackRequest")

    version: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Version to serve; default: the last certified one before the current."
    )


async def refit(request: Request) -> Response:
    """Ask for a refit; whichever process comes first starts it."""
    runtime = _admitted(request)
    await run_in_threadpool(request_refit, runtime.store)
    return JSONResponse({"status": "requested", "follow": "/healthz"}, 202)


async def rollback(request: Request) -> Response:
    """Serve an earlier version; every worker notices within a second."""
    runtime = _admitted(request)
    asked = await read_model(request, RollbackRequest, runtime.max_body)
    try:
        done = await run_in_threadpool(roll_back, runtime.versions, asked.version)
    except ArtifactError as error:
        raise RefusalError(404, str(error), code=error.code, param="version") from error
    return JSONResponse({"version": done.version, "before": done.before})


def _admitted(request: Request) -> Runtime:
    """Check the admin key in constant time."""
    runtime = runtime_of(request)
    key = runtime.task.spec.server.admin_key or SecretStr(os.environ.get(KEY, ""))
    if not key:
        raise RefusalError(
            403, f"the admin routes are closed: neither server.admin_key nor {KEY} is set", code="admin_closed"
        )
    given = request.headers.get("authorization", "")
    if not given.lower().startswith("bearer "):
        raise RefusalError(401, "send the admin key as `Authorization: Bearer KEY`", code="missing_key")
    if Keys([key]).owner(given) is None:
        raise RefusalError(403, "this is not the admin key", code="wrong_key")
    return runtime
