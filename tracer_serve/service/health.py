"""Is it alive, can it answer, what is wrong: for machines and for people."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tracer_serve.errors import StoreError
from tracer_serve.metrics import CONTENT_TYPE
from tracer_serve.schedule import LAST
from tracer_serve.service.runtime import Runtime, runtime_of


async def livez(_: Request) -> Response:
    """Answer that the process runs."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Answer that requests are answered: deferring all of them counts, and so does losing traces, but it is told."""
    runtime = runtime_of(request)
    loaded = runtime.live.loaded
    version = None if loaded is None else loaded.number
    return JSONResponse({"status": "ready", "version": version, "problems": runtime.problems()})


def healthz(request: Request) -> Response:
    """Answer with the details; 200 as long as requests are answered."""
    return JSONResponse(health(runtime_of(request)))


def health(runtime: Runtime) -> dict[str, Any]:
    """Return the state of a task as people want to see it."""
    problems = runtime.problems()
    last: Any = None
    try:
        last = runtime.store.get_value(LAST)
    except StoreError as error:
        problems.append(str(error))
    return {
        "status": "degraded" if problems else "ok",
        "task": runtime.task.spec.name,
        "version": _version(runtime),
        "problems": problems,
        "traces_lost": runtime.writer.lost,
        "last_refit": last,
    }


def _version(runtime: Runtime) -> dict[str, Any] | None:
    loaded = runtime.live.loaded
    if loaded is None:
        return None
    certificate = loaded.policy.certificate
    return {
        "number": loaded.number,
        "certified": certificate.certified,
        "reason": certificate.reason,
        "alpha": certificate.alpha,
        "delta": certificate.delta,
        "coverage": certificate.coverage,
        "lower_bound": certificate.lower_bound,
    }


def metrics(request: Request) -> Response:
    """Answer Prometheus."""
    return Response(runtime_of(request).metrics.render(), headers={"content-type": CONTENT_TYPE})
