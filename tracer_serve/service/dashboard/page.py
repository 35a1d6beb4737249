"""``GET /``: one page that brings everything but its numbers, which it asks for."""

from functools import lru_cache

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracer_serve.report.render import asset, environment, json_in_script, security_policy
from tracer_serve.service.pages import SAFE
from tracer_serve.service.runtime import runtime_of

_SCRIPTS = ("base", "live", "live_parts", "live_acts")


async def index(request: Request) -> Response:
    """Answer with the dashboard; its addresses are relative, so that it works wherever the task is mounted."""
    spec = runtime_of(request).task.spec
    page, policy = await run_in_threadpool(_page, spec.name, spec.input == "pair")
    return HTMLResponse(page, headers={"content-security-policy": policy} | SAFE)


@lru_cache(maxsize=256)
def _page(task: str, pair: bool) -> tuple[str, str]:
    """Return the page of a task and the policy that allows its scripts, its style and its own server."""
    style = f"{asset('report.css')}\n{asset('dashboard.css')}"
    scripts = [asset("echarts.js"), "\n".join(asset(f"page/{name}.js") for name in _SCRIPTS)]
    page = (
        environment()
        .get_template("dashboard.html")
        .render(
            task=task,
            pair=pair,
            style=Markup(style),  # noqa: S704  # our own files
            scripts=[Markup(script) for script in scripts],  # noqa: S704  # our own files
            data=Markup(json_in_script({"task": task})),  # noqa: S704  # no character in it can end the script element
        )
    )
    return page, security_policy(style, scripts, connect="'self'")
