"""ASGI application of the proxy: forwards everything under ``/v1``, and shows the tasks found on a page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tracer_serve.server.app import HANDLERS
from tracer_serve.server.chat.forward import is_plain
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_body
from tracer_serve.server.proxy.found import FoundCalls
from tracer_serve.server.proxy.observer import Observer
from tracer_serve.server.proxy.pages import calls_json, index, project_coverage, write
from tracer_serve.server.proxy.relay import ProxyRelay, Upstream

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_MAX_BODY = 64_000_000


def make_proxy(upstream: str, observer: Observer, found: FoundCalls, admin_key: SecretStr) -> Starlette:
    """Return the application; its lifespan starts and stops the observer.

    Parameters
    ----------
    upstream : root of the API, such as ``https://api.openai.com/v1``
    admin_key : opens the page and ``/admin/*``; empty: they are closed
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.upstream, app.state.found = Upstream(upstream, observer.observe), found
        app.state.admin_key = admin_key
        observer.start()
        try:
            yield
        finally:
            await app.state.upstream.close()
            observer.stop()

    routes = [
        Route("/v1/{path:path}", forward, methods=METHODS),
        Route("/livez", _alive),
        Route("/readyz", _alive),
        Route("/", index),
        Route("/calls.json", calls_json),
        Route("/admin/tasks", write, methods=["POST"]),
        Route("/admin/projection", project_coverage, methods=["POST"]),
    ]
    return Starlette(lifespan=lifespan, routes=routes, exception_handlers=HANDLERS)


async def forward(request: Request) -> Response:
    """Forward a request of any method, with the caller's own key."""
    path: str = request.path_params["path"]
    if not is_plain(path):
        raise RefusalError(404, "this path belongs to no API", code="not_found")
    body = await read_body(request, _MAX_BODY)
    return ProxyRelay(request.app.state.upstream, path, body, request)


def _alive(_: Request) -> Response:
    return PlainTextResponse("ok")
