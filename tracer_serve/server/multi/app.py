"""Serve several tasks in one application: each has an application of its own, selected by the model's name.

A task's routes are below ``/t/NAME/``. A request without that prefix goes to the task that it names as its model. A
chat call that no task recognises is forwarded to the endpoint of the first task that has one.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from tracer_serve.config.load import Task
from tracer_serve.infra.log_context import TASK
from tracer_serve.server.app import HANDLERS, make_app, spans
from tracer_serve.server.chat.face import Face
from tracer_serve.server.chat.route import FACES, FOREIGN
from tracer_serve.server.http.allowed_hosts import AllowedHosts
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_body, require_json
from tracer_serve.server.http.request_tracing import name_tasks
from tracer_serve.server.multi.dispatch import by_endpoint, by_form, by_model
from tracer_serve.server.multi.mounted_task import MountedTask, open_tasks
from tracer_serve.server.multi.overview import (
    docs,
    docs_page,
    healthz,
    index,
    metrics,
    models,
    one_model,
    readyz,
    schema,
)
from tracer_serve.server.routes import health

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_BY_MODEL = ("classify", "feedback")
_TASK_ROUTES = (
    "/v1/explain",
    "/status.json",
    "/review",
    "/review.json",
    "/review.jsonl",
    "/versions/{path:path}",
    "/admin/{path:path}",
)
_OUTER = ("path", "raw_path", "path_params", "endpoint", "route", "router", "app")


def make_apps(tasks: Sequence[Task], *, schedule: bool = True) -> Starlette:
    """Return the application of several tasks; its lifespan starts all of them, or none.

    Parameters
    ----------
    schedule : whether this process may start refits
    """
    mounts = tuple(MountedTask(task, make_app(task, schedule=schedule, alone=False)) for task in tasks)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.tasks = mounts
        name_tasks()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(spans(",".join(mount.name for mount in mounts)))
            for mount in mounts:
                await stack.enter_async_context(mount.app.router.lifespan_context(mount.app))
            yield

    servers = [task.spec.server for task in tasks]
    # pages of several tasks are shown together, so one task without keys is enough to check the host
    keyless = any(not server.api_keys for server in servers)
    around = [Middleware(AllowedHosts, servers=servers)] if keyless else []
    app = Starlette(lifespan=lifespan, routes=ROUTES, middleware=around, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return app


async def _mounted(request: Request) -> Response:
    """Dispatch a request below ``/t/NAME/`` to that task."""
    name, path = request.path_params["task"], request.path_params["path"]
    mount = next((mount for mount in request.app.state.tasks if mount.name == name), None)
    if mount is None:
        known = ", ".join(mount.name for mount in open_tasks(request))
        raise RefusalError(404, f"there is no task {name!r} here; there are {known}", code="not_found")
    return _Dispatched(mount, f"/{path}")


async def _by_model(request: Request, *, path: str) -> Response:
    mounts = open_tasks(request)
    require_json(request)
    body = await _body(request, mounts)
    return _Dispatched(by_model(mounts, body), path, body)


async def _call(request: Request, *, face: Face) -> Response:
    mounts = open_tasks(request)
    require_json(request)
    body = await _body(request, mounts)
    mount = by_form(mounts, body, face)
    to = mount or by_endpoint(mounts, body, face.path, face.protocol)
    return _Dispatched(to, f"/v1/{face.path}", body, own=mount is not None)


async def _others(request: Request) -> Response:
    mounts, path = open_tasks(request), request.path_params["path"]
    if path == "models" or request.method != "POST":
        raise HTTPException(405)
    body = await _body(request, mounts)
    return _Dispatched(by_endpoint(mounts, body, path), f"/v1/{path}", body)


async def _wrong_path(request: Request) -> Response:
    name = open_tasks(request)[0].name
    path = request.url.path
    raise RefusalError(404, f"several tasks are served here; this is at /t/NAME{path}, such as /t/{name}{path}")


async def _not_found(request: Request) -> Response:
    open_tasks(request)
    raise HTTPException(404)


async def _slash(request: Request) -> Response:
    return RedirectResponse(f"/t/{request.path_params['task']}/")


async def _body(request: Request, mounts: Sequence[MountedTask]) -> bytes:
    """Read a body up to the largest limit of all tasks; the selected task checks its own limit."""
    return await read_body(request, max(mount.runtime.max_body for mount in mounts))


class _Dispatched(Response):
    """The response of a task's application.

    Parameters
    ----------
    path : of the request in that application
    body : the request's body, if it was read already
    own : whether the call may be the task's; otherwise it is forwarded
    """

    def __init__(self, mount: MountedTask, path: str, body: bytes | None = None, *, own: bool = True) -> None:
        self.mount, self.path, self.read, self.own = mount, path, body, own
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        inner = {key: value for key, value in scope.items() if key not in _OUTER}
        TASK.set(self.mount.name)
        inner |= {"path": self.path, "raw_path": self.path.encode(), FOREIGN: not self.own}
        await self.mount.app(inner, receive if self.read is None else _replayed(self.read, receive), send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body again, and then later messages."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return pending.pop() if pending else await receive()

    return give


ROUTES = [
    *(Route(f"/v1/{name}", partial(_by_model, path=f"/v1/{name}"), methods=["POST"]) for name in _BY_MODEL),
    *(Route(f"/v1/{face.path}", partial(_call, face=face), methods=["POST"]) for face in FACES),
    Route("/v1/models", models),
    Route("/v1/models/{name:path}", one_model),
    *(Route(path, _wrong_path, methods=_METHODS) for path in _TASK_ROUTES),
    Route("/v1/{path:path}", _others, methods=_METHODS),
    Route("/t/{task}", _slash),
    Route("/t/{task}/{path:path}", _mounted, methods=_METHODS),
    Route("/livez", health.livez),
    Route("/readyz", readyz),
    Route("/healthz", healthz),
    Route("/metrics", metrics),
    Route("/schema.json", schema),
    Route("/docs.json", docs),
    Route("/docs", docs_page),
    Route("/", index),
    Route("/{path:path}", _not_found, methods=_METHODS),
]
