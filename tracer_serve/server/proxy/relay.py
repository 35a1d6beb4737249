"""Forward requests to the upstream API, and its answers back, byte by byte, with the caller's own key."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from yarl import URL

from tracer_serve.infra.http_endpoint import tls_problem
from tracer_serve.server.http.client_presence import while_connected
from tracer_serve.server.http.errors import RefusalError, respond

MOST_OBSERVED = 64_000
"""Maximum number of bytes of an answer that is observed; longer ones hold no label."""

# between two tokens, as OpenAI's own clients allow
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=20.0, sock_connect=20.0, sock_read=600.0)
_CONNECTIONS, _KEEP_ALIVE_S = 256, 30.0
_LONGEST_HEADER = 65_536
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"host"),
    }
)
_NOT_SENT = _HOP_BY_HOP | {b"content-length"}  # aiohttp writes it


@dataclass(frozen=True, slots=True)
class Exchange:
    """A forwarded call with its whole answer.

    Parameters
    ----------
    path : path below the API's root, such as ``chat/completions``
    headers : headers of the answer
    at : when the answer ended, in seconds since 1970
    """

    path: str
    request: bytes
    status: int
    headers: Mapping[str, str]
    answer: bytes
    at: float


Observe = Callable[[Exchange], None]


class Upstream:
    """Client of the API that calls are forwarded to; made in a running event loop.

    aiohttp, not httpx as elsewhere: it takes half the CPU per call, which is most of what the proxy adds to a call.

    Parameters
    ----------
    root : such as ``https://api.openai.com/v1``
    observe : called with each exchange after the client has its answer; must return at once
    """

    def __init__(self, root: str, observe: Observe) -> None:
        self.root, self.observe = root.rstrip("/"), observe
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S, ssl=httpx.create_ssl_context()
            ),
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            trust_env=True,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )

    async def send(self, path: str, body: bytes, request: Request) -> aiohttp.ClientResponse:
        """Send a request upstream: method, query, headers and body as they came.

        Raises
        ------
        ValueError
            A header cannot be forwarded.
        aiohttp.ClientError, TimeoutError
            The upstream cannot be reached.
        """
        query = request.scope["query_string"].decode("ascii")
        # concatenated, not joined: a path that looks like a URL must not lead to another host
        url = URL(f"{self.root}/{path}" + (f"?{query}" if query else ""), encoded=True)
        headers = [(name, value) for name, value in request.headers.raw if name not in _NOT_SENT]
        return await self._session.request(
            request.method,
            url,
            headers=[(name.decode("ascii"), value.strip().decode()) for name, value in headers],
            data=body or None,
            allow_redirects=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class ProxyRelay(Response):
    """Streaming response: forwards the upstream's answer while it arrives, until the client leaves."""

    def __init__(self, upstream: Upstream, path: str, body: bytes, request: Request) -> None:
        self.upstream, self.path, self.sent, self.request = upstream, path, body, request
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward until the answer ends or the client leaves."""
        await while_connected(receive, self._pass(scope, receive, send))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self.upstream.send(self.path, self.sent, self.request)
        except (aiohttp.ClientError, TimeoutError) as error:  # first: some are a ValueError too
            cause = tls_problem(error, "--upstream") or type(error).__name__
            problem = f"the upstream API cannot be reached: {cause}"
            await respond(RefusalError(502, problem, code="upstream_unavailable"))(scope, receive, send)
            return
        except ValueError:
            refusal = RefusalError(400, "a header of this request cannot be forwarded", code="bad_header")
            await respond(refusal)(scope, receive, send)
            return
        async with answer:
            await self._answer(answer, send)

    async def _answer(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in _HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        parts, size = list[bytes](), 0
        async for part in answer.content.iter_any():
            await send({"type": "http.response.body", "body": part, "more_body": True})
            size += len(part)
            if size <= MOST_OBSERVED:
                parts.append(part)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        whole = b"".join(parts) if size <= MOST_OBSERVED else b""
        self.upstream.observe(Exchange(self.path, self.sent, answer.status, answer.headers, whole, time.time()))
