"""Page of unrecognised calls, with its actions; requires the admin key."""

import json
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tracer_serve.config.server import ADMIN_KEY, ApiKey
from tracer_serve.report.render import page
from tracer_serve.server.http.api_keys import Keys
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_body
from tracer_serve.server.proxy.found import FoundCalls
from tracer_serve.server.routes.report_pages import SAFE, page_headers

_FORM = "application/x-www-form-urlencoded"
_SLOT = 60  # characters shown of each end of a prompt
_SEEN = 1000  # bytes of a posted form


async def index(request: Request) -> Response:
    """Return the page."""
    found = _admitted(request)
    rows = await run_in_threadpool(rows_of, found)
    totals = found.totals()
    data: dict[str, Any] = {
        "rows": rows,
        "calls": totals.calls,
        "missed": found.observer.missed,
        "alpha": found.settings.alpha,
        "upstream": found.settings.upstream,
        "folder": str(found.settings.tasks),
        "projecting": found.projecting.locked(),
    }
    html, policy = await run_in_threadpool(lambda: page("calls.html", (), {}, styles=("report",), forms=True, **data))
    return HTMLResponse(html, headers=page_headers(policy))


async def calls_json(request: Request) -> Response:
    """Return the numbers of the page as JSON."""
    found = _admitted(request)
    rows = await run_in_threadpool(rows_of, found)
    totals = found.totals()
    forms = len(found.observer.groups.forms())
    answer = {"calls": totals.calls, "forms": forms, "missed": found.observer.missed, "tasks": rows}
    return JSONResponse(answer, headers=SAFE)


async def write(request: Request) -> Response:
    """Write the files of the named task."""
    found = _admitted(request, acts=True)
    file = await run_in_threadpool(found.write, await _name_of(request))
    if _is_form(request):
        return RedirectResponse("../", 303)
    return JSONResponse({"wrote": str(file), "next": f"tracer-serve check {file}"}, 201)


async def project_coverage(request: Request) -> Response:
    """Start to project the coverage of the tasks found."""
    found = _admitted(request, acts=True)
    started = await run_in_threadpool(found.project)
    if _is_form(request):
        return RedirectResponse("../", 303)
    return JSONResponse({"status": "started" if started else "under way", "follow": "/calls.json"}, 202)


def rows_of(found: FoundCalls) -> list[dict[str, Any]]:
    """Return a row for each task: cost a day, projected coverage, and the prompt tokens that it would save."""
    rows = []
    for task in found.tasks():
        group = task.group
        coverage = found.coverage.get(group.form.fingerprint)
        rows.append(
            {
                "name": task.name,
                "form": group.form.fingerprint,
                "model": group.form.model,
                "calls": group.totals.calls,
                "calls_a_day": task.calls_a_day,
                "labels": list(group.label_set),
                "before": group.slot.prefix[-_SLOT:],
                "after": group.slot.suffix[:_SLOT],
                "prompt_tokens": task.prompt_tokens,
                "tokens_a_day": task.tokens_a_day,
                "cost_a_day": task.cost_a_day,
                "coverage": coverage,
                "prompt_tokens_saved": None if coverage is None else coverage * task.prompt_tokens,
                "written": (found.settings.tasks / f"{task.name}.yaml").exists(),
            }
        )
    return rows


def _admitted(request: Request, *, acts: bool = False) -> FoundCalls:
    """Check the admin key (a bearer token, or a browser's password), and that the request comes from this page."""
    key = request.app.state.admin_key
    if not key:
        raise RefusalError(403, f"this page is closed: {ADMIN_KEY} is not set", code="admin_closed")
    given = request.headers.get("authorization", "")
    if Keys([ApiKey(key=key, rights=("admin",))]).caller(given) is None:
        asks = {"www-authenticate": 'Basic realm="tracer-serve proxy, the admin key is the password"'}
        raise RefusalError(401, "send the admin key as `Authorization: Bearer KEY`", code="missing_key", headers=asks)
    origin = request.headers.get("origin")
    elsewhere = request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if acts and (elsewhere or (origin is not None and origin.partition("://")[2] != request.headers.get("host"))):
        raise RefusalError(403, "a request from another site's page is refused", code="cross_site")
    found: FoundCalls = request.app.state.found
    return found


async def _name_of(request: Request) -> str:
    """Return the task name in a form or a JSON object."""
    body = await read_body(request, _SEEN)
    if _is_form(request):
        return parse_qs(body.decode("utf-8", "replace")).get("name", [""])[0]
    try:
        return str(json.loads(body)["name"])
    except (ValueError, LookupError, TypeError):
        raise RefusalError(400, 'send {"name": "..."} as JSON', param="name") from None


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0] == _FORM
