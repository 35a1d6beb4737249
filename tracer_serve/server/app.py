"""The HTTP routes as one Starlette application."""

from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from tracer_serve.config.load import Task
from tracer_serve.errors import TracerServeError
from tracer_serve.infra import tracing as telemetry
from tracer_serve.server import documents
from tracer_serve.server.api_page import api_page
from tracer_serve.server.chat.passthrough import others
from tracer_serve.server.chat.route import FACES, answer_call, chatting
from tracer_serve.server.dashboard.explain import explain
from tracer_serve.server.dashboard.page import index
from tracer_serve.server.dashboard.status import status
from tracer_serve.server.http import errors as failures
from tracer_serve.server.http.allowed_hosts import AllowedHosts
from tracer_serve.server.http.auth import Guard
from tracer_serve.server.http.request_tracing import Tracing, wanted
from tracer_serve.server.review import routes as review
from tracer_serve.server.routes import admin, health
from tracer_serve.server.routes import report_pages as pages
from tracer_serve.server.routes.classify import classify
from tracer_serve.server.routes.feedback import feedback
from tracer_serve.serving.runtime import running

ROUTES = [  # the busiest first: they are tried in this order
    Route("/v1/classify", classify, methods=["POST"]),
    *(Route(f"/v1/{face.path}", partial(answer_call, face=face), methods=["POST"]) for face in FACES),
    Route("/v1/feedback", feedback, methods=["POST"]),
    Route("/v1/explain", explain, methods=["POST"]),
    Route("/v1/models", documents.models),
    Route("/v1/models/{name:path}", documents.one_model),
    Route("/v1/{path:path}", others, methods=["POST"]),
    Route("/livez", health.livez),
    Route("/readyz", health.readyz),
    Route("/healthz", health.healthz),
    Route("/metrics", health.metrics),
    Route("/schema.json", documents.schema),
    Route("/docs.json", documents.docs),
    Route("/docs", api_page),
    Route("/", index),
    Route("/status.json", status),
    Route("/versions/compare", pages.compare),
    Route("/versions/{number}/report.html", pages.report),
    Route("/review", review.review),
    Route("/review.json", review.rows),
    Route("/review.jsonl", review.export, methods=["GET"]),
    Route("/review.jsonl", review.judged, methods=["POST"]),
    Route("/admin/refit", admin.refit, methods=["POST"]),
    Route("/admin/approve", admin.approve, methods=["POST"]),
    Route("/admin/rollback", admin.rollback, methods=["POST"]),
    Route("/admin/log", admin.log),
]


HANDLERS: Any = {
    TracerServeError: failures.on_refusal,
    HTTPException: failures.on_http,
    Exception: failures.on_unexpected,
}
"""What becomes of an exception."""


def make_app(task: Task, *, schedule: bool = True, alone: bool = True) -> Starlette:
    """Return the application of a task; its lifespan starts and stops everything behind it.

    Parameters
    ----------
    schedule : whether this process may start refits
    alone : whether no other task is served by this process; where one is, spans are started for all of them together
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            spans(task.spec.name if alone else None),
            running(task, schedule=schedule) as runtime,
            chatting(runtime) as chat,
        ):
            app.state.runtime, app.state.chat = runtime, chat
            yield

    around = [Middleware(Tracing, task=task.spec.name)] if wanted() else []
    server = task.spec.server
    if alone and not server.api_keys:
        around.append(Middleware(AllowedHosts, servers=[server]))
    around.append(Middleware(Guard, server=server, on_refused=admin.RefusedActs().record))
    return Starlette(lifespan=lifespan, routes=ROUTES, middleware=around, exception_handlers=HANDLERS)


@asynccontextmanager
async def spans(name: str | None) -> AsyncIterator[None]:
    """Record spans, where they have somewhere to go and there is a name to record them under."""
    stop = telemetry.start(name) if name and telemetry.configured() else None
    try:
        yield
    finally:
        if stop is not None:
            await to_thread(stop)
