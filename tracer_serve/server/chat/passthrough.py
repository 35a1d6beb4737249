"""``POST /v1/*`` beside the routes of this server: embeddings, moderations. They are forwarded."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tracer_serve.forms.known import OTHER_ROUTE
from tracer_serve.server.chat.forward import is_plain, takes
from tracer_serve.server.chat.relay import Relay
from tracer_serve.server.chat.route import Chat, why_nowhere
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_body

_OURS = frozenset({"models"})
_ELSEWHERE = ("cross-site", "same-site")


async def others(request: Request) -> Response:
    """Forward a POST as it is. Other methods are refused: the operator's account is not for callers to list.

    The body need not be JSON, so a browser sends such a request from another site without a preflight. The headers
    show that, and the request is refused.
    """
    runtime, path = runtime_of(request), request.path_params["path"]
    chat: Chat = request.app.state.chat
    if path in _OURS:
        raise HTTPException(405)
    if not takes(chat.forwarder, path) or not is_plain(path):
        why = "this path belongs to no API" if takes(chat.forwarder, path) else why_nowhere(runtime.task.spec, path)
        problem = f"no such route, and nowhere to forward the request to: {why}; /docs.json lists the routes"
        raise RefusalError(404, problem, code="not_found")
    if _from_another_site(request):
        raise RefusalError(403, "pages of another site may not send requests here", code="cross_site")
    body = await read_body(request, runtime.max_body)
    runtime.metrics.forwarded(OTHER_ROUTE)
    headers = {"x-tracer-decision": "forwarded", "x-tracer-reason": OTHER_ROUTE}
    return Relay(chat.forwarder, path, body, request, headers=headers)


def _from_another_site(request: Request) -> bool:
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site") in _ELSEWHERE:
        return True
    # compared as it is written: what is no URL, which `urlsplit` would raise on, is no page of this one
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")
