"""Several tasks side by side: each has the application that it would have alone, and the model's name picks one.

Everything of a task is under ``/t/NAME/``. What a client asks without that prefix goes to the task that it names as its
model; what none of them knows goes to the endpoint of the first task that has one.
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
from tracer_serve.server.multi.mounted_task import MountedTask, sides_of
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
_ASKED_BY_MODEL = ("classify", "feedback")
_OF_A_TASK = ("/v1/explain", "/status.json", "/versions/{path:path}", "/admin/{path:path}")
_OUTER = ("path", "raw_path", "path_params", "endpoint", "route", "router", "app")


def make_apps(tasks: Sequence[Task], *, schedule: bool = True) -> Starlette:
    """Return the application of several tasks; its lifespan starts all of them, or none.

    Parameters
    ----------
    schedule : whether this process may start refits
    """
    sides = tuple(MountedTask(task, make_app(task, schedule=schedule, alone=False)) for task in tasks)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.sides = sides
        name_tasks()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(spans(",".join(side.name for side in sides)))
            for side in sides:
                await stack.enter_async_context(side.app.router.lifespan_context(side.app))
            yield

    servers = [task.spec.server for task in tasks]
    # pages of several tasks are shown together, so one task without keys is enough to check the host
    keyless = any(not server.api_keys for server in servers)
    around = [Middleware(AllowedHosts, servers=servers)] if keyless else []
    app = Starlette(lifespan=lifespan, routes=ROUTES, middleware=around, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return app


async def _below(request: Request) -> Response:
    """Hand a request below ``/t/NAME/`` to that task."""
    name, path = request.path_params["task"], request.path_params["path"]
    side = next((side for side in request.app.state.sides if side.name == name), None)
    if side is None:
        known = ", ".join(side.name for side in sides_of(request))
        raise RefusalError(404, f"there is no task {name!r} here; there are {known}", code="not_found")
    return _Handed(side, f"/{path}")


async def _asked_by_model(request: Request, *, path: str) -> Response:
    sides = sides_of(request)
    require_json(request)
    body = await _body(request, sides)
    return _Handed(by_model(sides, body), path, body)


async def _call(request: Request, *, face: Face) -> Response:
    sides = sides_of(request)
    require_json(request)
    body = await _body(request, sides)
    side = by_form(sides, body, face)
    to = side or by_endpoint(sides, body, face.path, face.protocol)
    return _Handed(to, f"/v1/{face.path}", body, own=side is not None)


async def _others(request: Request) -> Response:
    sides, path = sides_of(request), request.path_params["path"]
    if path == "models" or request.method != "POST":
        raise HTTPException(405)
    body = await _body(request, sides)
    return _Handed(by_endpoint(sides, body, path), f"/v1/{path}", body)


async def _of_a_task(request: Request) -> Response:
    name = sides_of(request)[0].name
    path = request.url.path
    raise RefusalError(404, f"several tasks are served here; this is at /t/NAME{path}, such as /t/{name}{path}")


async def _nothing(request: Request) -> Response:
    sides_of(request)
    raise HTTPException(404)


async def _slash(request: Request) -> Response:
    return RedirectResponse(f"/t/{request.path_params['task']}/")


async def _body(request: Request, sides: Sequence[MountedTask]) -> bytes:
    """Read a body that at least one of the tasks would read; the one that is picked has a limit of its own."""
    return await read_body(request, max(side.runtime.max_body for side in sides))


class _Handed(Response):
    """The answer of a task's own application.

    Parameters
    ----------
    path : what it is asked for
    body : what was read of the request already
    own : whether the call may be the task's own; else it is passed on
    """

    def __init__(self, side: MountedTask, path: str, body: bytes | None = None, *, own: bool = True) -> None:
        self.side, self.path, self.read, self.own = side, path, body, own
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask it."""
        inner = {key: value for key, value in scope.items() if key not in _OUTER}
        TASK.set(self.side.name)
        inner |= {"path": self.path, "raw_path": self.path.encode(), FOREIGN: not self.own}
        await self.side.app(inner, receive if self.read is None else _again(self.read, receive), send)


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, and then whatever comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return pending.pop() if pending else await receive()

    return give


ROUTES = [
    *(Route(f"/v1/{name}", partial(_asked_by_model, path=f"/v1/{name}"), methods=["POST"]) for name in _ASKED_BY_MODEL),
    *(Route(f"/v1/{face.path}", partial(_call, face=face), methods=["POST"]) for face in FACES),
    Route("/v1/models", models),
    Route("/v1/models/{name:path}", one_model),
    *(Route(path, _of_a_task, methods=_METHODS) for path in _OF_A_TASK),
    Route("/v1/{path:path}", _others, methods=_METHODS),
    Route("/t/{task}", _slash),
    Route("/t/{task}/{path:path}", _below, methods=_METHODS),
    Route("/livez", health.livez),
    Route("/readyz", readyz),
    Route("/healthz", healthz),
    Route("/metrics", metrics),
    Route("/schema.json", schema),
    Route("/docs.json", docs),
    Route("/docs", docs_page),
    Route("/", index),
    Route("/{path:path}", _nothing, methods=_METHODS),
]
