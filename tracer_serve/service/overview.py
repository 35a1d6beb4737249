"""What several tasks say together: each caller sees those that its key opens."""

import base64
import hashlib

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from tracer_serve.metrics import CONTENT_TYPE, render
from tracer_serve.report.words import at_least, percent
from tracer_serve.service.answers import JsonAnswer
from tracer_serve.service.documents import model
from tracer_serve.service.health import health, readiness
from tracer_serve.service.openapi import openapi
from tracer_serve.service.pages import SAFE
from tracer_serve.service.side import sides_of

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a}"
    "div{overflow-x:auto}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;"
    "border-bottom:1px solid #ddd}.bad{color:#a00}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}td,th{border-color:#444}"
    "a{color:#8ab4f8}.bad{color:#ff8a80}}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
_PAGE = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>{{ style|safe }}</style>
<h1>{{ title }}</h1>
<div role="region" aria-label="Tasks" tabindex="0">
<table><tr><th>task<th>mode<th>version<th>gate<th>certified coverage<th>agreement, at least<th>problems
{% for t in tasks %}{% set v = t.version %}
<tr><td><a href="t/{{ t.task }}/">{{ t.task }}</a><td>{{ t.mode }}<td>{{ v.number if v else "none yet" }}
<td>{{ "open" if t.gate.open else t.gate.reason|replace("_", " ") }}
{% if v and v.certified %}<td>{{ percent(v.coverage) }}<td>{{ at_least(v.lower_bound) }}
{% else %}<td><td>{% endif %}<td class="bad">{{ t.problems|join("; ") }}{% endfor %}</table></div></html>
"""
)


def models(request: Request) -> Response:
    """Answer with the tasks, each as a model."""
    return JSONResponse({"object": "list", "data": [model(side.task) for side in sides_of(request)]})


async def readyz(request: Request) -> Response:
    """Answer that requests to all of the tasks are answered."""
    tasks = {side.name: readiness(side.runtime) for side in request.app.state.sides}
    return JSONResponse({"status": "ready", "tasks": tasks})


def healthz(request: Request) -> Response:
    """Answer with the details of each task; degraded as soon as one is."""
    tasks = {side.name: health(side.runtime) for side in sides_of(request)}
    ok = all(task["status"] == "ok" for task in tasks.values())
    return JsonAnswer({"status": "ok" if ok else "degraded", "tasks": tasks})


def metrics(request: Request) -> Response:
    """Answer Prometheus; the label `task` tells the tasks apart."""
    several = [side.runtime.metrics for side in request.app.state.sides]
    return Response(render(several), headers={"content-type": CONTENT_TYPE})


def schema(request: Request) -> Response:
    """Answer in the shape of BentoML's own schema route."""
    sides_of(request)
    paths = {route.path: {"mounted": True} for route in request.app.routes}
    return JSONResponse({"name": "tracer-serve", "type": "service", "routes": [], "paths": paths})


def docs(request: Request) -> Response:
    """Answer with the OpenAPI document: a task's own routes are below its prefix."""
    names = [side.name for side in sides_of(request)]
    below = {"url": "/t/{task}", "variables": {"task": {"default": names[0], "enum": names}}}
    return JSONResponse(openapi() | {"servers": [below]})


def index(request: Request) -> Response:
    """Answer with a page that leads to the tasks' dashboards."""
    tasks = [health(side.runtime) for side in sides_of(request)]
    title = f"{len(tasks)} task{'' if len(tasks) == 1 else 's'}"
    page = _PAGE.render(style=_STYLE, title=title, tasks=tasks, percent=percent, at_least=at_least)
    return HTMLResponse(page, headers={"content-security-policy": _POLICY} | SAFE)
