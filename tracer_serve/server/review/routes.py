"""``/review``: the queue as a page and as JSON; ``/review.jsonl``: out to a labelling tool, and back."""

from functools import lru_cache
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracer_serve.infra.caller import KEY_ID
from tracer_serve.report.render import page
from tracer_serve.server.http.auth import ADMIN
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import header_of, read_body
from tracer_serve.server.review.exchange import Format, exported, judgements
from tracer_serve.server.review.queue import labels_of, queue_of
from tracer_serve.server.routes.feedback import correct, require_feedback
from tracer_serve.server.routes.report_pages import SAFE, page_headers
from tracer_serve.serving.runtime import Runtime

_LINES = "application/x-ndjson"
_FORMATS: tuple[Format, ...] = ("label-studio", "argilla")
_REFUSED = 20  # lines that are named


async def review(request: Request) -> Response:
    """Answer with the page; it asks for its rows."""
    runtime = runtime_of(request)
    require_feedback(runtime)
    html, policy = await run_in_threadpool(_page, runtime.task.spec.name)
    return HTMLResponse(html, headers=page_headers(policy))


async def rows(request: Request) -> Response:
    """Answer with the rows that this key may judge."""
    runtime = runtime_of(request)
    require_feedback(runtime)
    found: dict[str, Any] = {"labels": await run_in_threadpool(labels_of, runtime)}
    return JsonAnswer(found | {"items": await _queue(request, runtime)}, headers={"cache-control": "no-store"})


async def export(request: Request) -> Response:
    """Answer with the queue as JSON lines for a labelling tool, by default Label Studio."""
    runtime = runtime_of(request)
    require_feedback(runtime)
    asked = request.query_params.get("format", _FORMATS[0])
    form = next((known for known in _FORMATS if known == asked), None)
    if form is None:
        raise RefusalError(400, f"there is no format {asked[:20]!r}, only {' and '.join(_FORMATS)}", param="format")
    lines = "".join(exported(await _queue(request, runtime), form))
    name = f"{runtime.task.spec.name}-{form}.jsonl"
    return Response(lines, media_type=_LINES, headers=SAFE | {"content-disposition": f'attachment; filename="{name}"'})


async def judged(request: Request) -> Response:
    """Take the judgements of a labelling tool as feedback, and answer how many rows were corrected and refused."""
    runtime = runtime_of(request)
    require_feedback(runtime)
    kind = header_of(request, b"content-type").partition(";")[0].strip().lower()
    if kind not in (_LINES, "application/json"):  # a form of another site can send neither
        raise RefusalError(415, f"send JSON lines with the header content-type: {_LINES}, not {kind or 'none'!r}")
    corrected, refused = 0, []
    for number, trace_id, said in judgements(await read_body(request, runtime.max_body)):
        if trace_id is None:
            refused.append({"line": number, "message": said})
            continue
        try:
            await correct(runtime, trace_id, said, admin=request.scope.get(ADMIN, False))
            corrected += 1
        except RefusalError as refusal:
            refused.append({"line": number, "message": str(refusal)})
    return JsonAnswer({"corrected": corrected, "refused": len(refused), "refusals": refused[:_REFUSED]})


async def _queue(request: Request, runtime: Runtime) -> list[dict[str, Any]]:
    return await run_in_threadpool(queue_of, runtime, KEY_ID.get(), admin=request.scope.get(ADMIN, False))


@lru_cache(maxsize=256)
def _page(task: str) -> tuple[str, str]:
    """Return the page of a task and the policy that allows its scripts, its style and its own server."""
    return page(
        "review.html",
        ("words", "review"),
        {"task": task},
        styles=("report", "dashboard"),
        connect="'self'",
        charts=False,
        task=task,
    )
