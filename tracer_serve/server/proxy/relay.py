"""Forward a request to the upstream API and its answer back, byte by byte, with the caller's own key."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tracer_serve.server.http.errors import RefusalError, respond

MOST_OBSERVED = 64_000
"""Bytes of an answer that are observed; a longer one holds no label."""

_TIMEOUT = httpx.Timeout(20.0, read=600.0)  # between two tokens, as OpenAI's own clients allow
_CONNECTIONS = 256
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"host"),
    }
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A forwarded call and its whole answer.

    Parameters
    ----------
    path : below the API's root, such as ``chat/completions``
    headers : of the answer
    at : when the answer ended, in seconds since 1970
    """

    path: str
    request: bytes
    status: int
    headers: httpx.Headers
    answer: bytes
    at: float


Observe = Callable[[Exchange], None]


class Upstream:
    """The API that calls are forwarded to.

    Parameters
    ----------
    root : such as ``https://api.openai.com/v1``
    observe : called with each exchange after the client has its answer; must return at once
    """

    def __init__(self, root: str, observe: Observe) -> None:
        self.root, self.observe = httpx.URL(root.rstrip("/")), observe
        limits = httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=30.0)
        self.client = httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, follow_redirects=False)

    def request(self, path: str, body: bytes, request: Request) -> httpx.Request:
        """Return the request to send: method, query, headers and body as they came."""
        target, query = self.root.raw_path.rstrip(b"/") + b"/" + path.encode("ascii"), request.scope["query_string"]
        # not joined: a path that looks like a URL must not lead to another host
        url = self.root.copy_with(raw_path=target + b"?" + query if query else target)
        headers = [(name, value.strip()) for name, value in request.headers.raw if name not in _HOP_BY_HOP]
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        given = {name for name, _ in headers}
        # httpx adds these where they are missing
        headers += [(name, b"identity") for name in (b"accept-encoding",) if name not in given]
        sent = httpx.Request(request.method, url, headers=headers, content=body or None)
        if b"accept" not in given:
            sent.headers.pop("accept", None)
        return sent

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


class ProxyRelay(Response):
    """The upstream's answer, passed on while it arrives, no longer than the client stays."""

    def __init__(self, upstream: Upstream, path: str, body: bytes, request: Request) -> None:
        self.upstream, self.path, self.sent, self.request = upstream, path, body, request
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward until the answer ends or the client leaves, whichever is first."""
        passing = asyncio.create_task(self._pass(scope, receive, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (passing, leaving):
                task.cancel()
            outcome, _ = await asyncio.gather(passing, leaving, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            sent = self.upstream.request(self.path, self.sent, self.request)
            answer = await self.upstream.client.send(sent, stream=True)
        except httpx.LocalProtocolError:
            refusal = RefusalError(400, "a header of this request cannot be forwarded", code="bad_header")
            await respond(refusal)(scope, receive, send)
            return
        except httpx.HTTPError as error:
            problem = f"the upstream API cannot be reached: {type(error).__name__}"
            await respond(RefusalError(502, problem, code="upstream_unavailable"))(scope, receive, send)
            return
        try:
            await self._answer(answer, send)
        finally:
            await answer.aclose()

    async def _answer(self, answer: httpx.Response, send: Send) -> None:
        headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        parts, size = list[bytes](), 0
        async for part in answer.aiter_raw():
            await send({"type": "http.response.body", "body": part, "more_body": True})
            size += len(part)
            if size <= MOST_OBSERVED:
                parts.append(part)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        whole = b"".join(parts) if size <= MOST_OBSERVED else b""
        self.upstream.observe(Exchange(self.path, self.sent, answer.status_code, answer.headers, whole, time.time()))


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
