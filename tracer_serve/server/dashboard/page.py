"""``GET /``: one page that brings everything but its numbers, which it asks for."""

from functools import lru_cache

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracer_serve.report.render import page
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.routes.report_pages import page_headers

_SCRIPTS = ("words", "base", "live", "live_parts", "live_acts")


async def index(request: Request) -> Response:
    """Answer with the dashboard; its addresses are relative, so that it works wherever the task is mounted."""
    spec = runtime_of(request).task.spec
    html, policy = await run_in_threadpool(_page, spec.name, spec.input == "pair")
    return HTMLResponse(html, headers=page_headers(policy))


@lru_cache(maxsize=256)
def _page(task: str, pair: bool) -> tuple[str, str]:
    """Return the page of a task and the policy that allows its scripts, its style and its own server."""
    styles = ("report", "dashboard")
    return page("dashboard.html", _SCRIPTS, {"task": task}, styles=styles, connect="'self'", task=task, pair=pair)
