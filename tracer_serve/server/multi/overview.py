"""Routes that combine several tasks; a caller sees the tasks that its key may use."""

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from tracer_serve.report.render import page
from tracer_serve.server.api_page import api_page
from tracer_serve.server.documents import bento_schema, listed, named
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.multi.mounted_task import open_tasks
from tracer_serve.server.multi.task_rows import row_of
from tracer_serve.server.openapi import openapi
from tracer_serve.server.routes.health import health, readiness
from tracer_serve.server.routes.report_pages import page_headers
from tracer_serve.serving.metrics import CONTENT_TYPE, render


def models(request: Request) -> Response:
    """Answer with the tasks, each as a model."""
    return JSONResponse(listed([mount.task for mount in open_tasks(request)]))


def one_model(request: Request) -> Response:
    """Answer with the task that is named, as a model."""
    return JSONResponse(named([mount.task for mount in open_tasks(request)], request.path_params["name"]))


async def readyz(request: Request) -> Response:
    """Answer whether all tasks answer requests."""
    tasks = {mount.name: readiness(mount.runtime) for mount in request.app.state.tasks}
    return JSONResponse({"status": "ready", "tasks": tasks})


def healthz(request: Request) -> Response:
    """Answer with the details of each task; degraded as soon as one is."""
    tasks = {mount.name: health(mount.runtime) for mount in open_tasks(request)}
    ok = all(task["status"] == "ok" for task in tasks.values())
    return JsonAnswer({"status": "ok" if ok else "degraded", "tasks": tasks})


def metrics(request: Request) -> Response:
    """Answer Prometheus; the label `task` distinguishes the tasks."""
    several = [mount.runtime.metrics for mount in request.app.state.tasks]
    return Response(render(several), headers={"content-type": CONTENT_TYPE})


def schema(request: Request) -> Response:
    """Answer in the format of BentoML's own schema route."""
    open_tasks(request)
    return JSONResponse(bento_schema("tracer-serve", request.app))


def docs(request: Request) -> Response:
    """Answer with the OpenAPI document: a task's own routes are below its prefix."""
    names = [mount.name for mount in open_tasks(request)]
    below = {"url": "/t/{task}", "variables": {"task": {"default": names[0], "enum": names}}}
    return JSONResponse(openapi() | {"servers": [below]})


def docs_page(request: Request) -> Response:
    """Answer with the OpenAPI document as a page."""
    open_tasks(request)
    return api_page(request)


def index(request: Request) -> Response:
    """Answer with a page of the tasks that says where they save, and where something is at risk."""
    tasks = [row_of(mount.runtime) for mount in open_tasks(request)]
    title = f"{len(tasks)} task{'' if len(tasks) == 1 else 's'}"
    saved = [task["today"]["teacher_calls_saved"] if task["today"] else 0 for task in tasks]
    facts: dict[str, Any] = {
        "saved": sum(saved),
        "looks": sum(task["risk"] > 0 for task in tasks),
        "by_savings": [task for _, task in sorted(zip(saved, tasks, strict=True), key=lambda pair: -pair[0])],
        "by_risk": sorted(tasks, key=lambda task: -task["risk"]),
    }
    html, policy = page("overview.html", (), {}, styles=("report", "dashboard"), title=title, **facts)
    return HTMLResponse(html, headers=page_headers(policy))
