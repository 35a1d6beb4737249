"""What is not the task's call, passed to the teacher's endpoint and back, byte by byte."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tracer_serve.errors import TeacherError
from tracer_serve.infra.resilience.circuit_breaker import Breaker
from tracer_serve.infra.resilience.concurrency_limit import Limit
from tracer_serve.server.http.errors import RefusalError, respond

CONCURRENCY = 64
"""Calls that are passed on at a time; each may be held open by a client that reads slowly."""

_PLAIN = re.compile(r"[A-Za-z0-9._~/:@-]+")
_TIMEOUT = httpx.Timeout(20.0, read=600.0)  # between two tokens, as OpenAI's own clients allow
_MOST_OF_AN_ERROR = 64_000  # bytes of a refusal that are read, to blot out secrets in it
_PASSED_ON = {
    *(b"accept", b"content-encoding", b"content-type", b"idempotency-key", b"traceparent"),
    *(b"openai-beta", b"openai-organization", b"openai-project"),
}
_OF_AN_ERROR = {"content-type", "retry-after", "retry-after-ms", "x-request-id", "x-should-retry"}
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    *("upgrade", "server", "date", "set-cookie"),  # the last three are the upstream server's own
}


class ForwardTarget(Protocol):
    """What is needed of a teacher's endpoint; `teachers.openai` has it."""

    name: str
    model: str
    client: httpx.AsyncClient
    breaker: Breaker

    def hide(self, message: str) -> str: ...  # noqa: D102


class Forwarder:
    """Passes calls on to the first endpoint that can be reached.

    The connections are its own, so that slow readers of long streams never keep the teacher from labelling. The
    caller's credentials stay here; the endpoint gets those of the spec.

    Parameters
    ----------
    endpoints : in order of preference; one under another model's name is left out, as the body is not touched
    """

    def __init__(self, endpoints: Sequence[ForwardTarget]) -> None:
        limits = httpx.Limits(max_connections=CONCURRENCY, keepalive_expiry=30.0)
        self._doors = [
            (
                e,
                httpx.AsyncClient(
                    base_url=e.client.base_url, headers=e.client.headers, timeout=_TIMEOUT, limits=limits
                ),
            )
            for e in endpoints
            if e.model == endpoints[0].model
        ]
        self.model = endpoints[0].model
        self._limit = Limit(CONCURRENCY, 0, weight=2)  # a stream may hold its place for minutes

    async def close(self) -> None:
        """Close the connections."""
        for _, client in self._doors:
            await client.aclose()

    @asynccontextmanager
    async def ask(
        self, path: str, body: bytes, request: Request
    ) -> AsyncIterator[tuple[ForwardTarget, httpx.Response]]:
        """Send a body as it is; yields the answer once its head has come.

        Parameters
        ----------
        path : below the endpoint's root, such as ``chat/completions``; `is_plain`

        Raises
        ------
        TeacherError
            Where no endpoint can be reached, or too many calls are under way.
        """
        # as bytes: a header may hold any
        headers = [(name, value) for name, value in request.headers.raw if name in _PASSED_ON]
        headers.append((b"accept-encoding", request.headers.get("accept-encoding", "identity").encode("latin-1")))
        async with self._limit.place():
            problem = TeacherError("no endpoint is there to pass calls on to", reason="unavailable")
            for endpoint, client in self._doors:
                # not joined: what looks like a URL of its own would take the spec's key there
                target = client.base_url.raw_path + path.encode("ascii")
                query = request.scope.get("query_string", b"")
                url = client.base_url.copy_with(raw_path=target + b"?" + query if query else target)
                sent = client.build_request("POST", url, content=body, headers=headers)
                try:
                    with endpoint.breaker.attempt():
                        answer = await _send(endpoint, client, sent)
                except TeacherError as error:
                    problem = error
                    continue
                try:
                    yield endpoint, answer
                finally:
                    await answer.aclose()
                return
            raise problem


def is_plain(path: str) -> bool:
    """Return whether a path stays below the root that it is appended to."""
    return bool(_PLAIN.fullmatch(path)) and not any(set(part) <= {"."} for part in path.split("/"))


async def _send(endpoint: ForwardTarget, client: httpx.AsyncClient, sent: httpx.Request) -> httpx.Response:
    try:
        return await client.send(sent, stream=True)
    except httpx.HTTPError as error:
        reason = "timeout" if isinstance(error, httpx.TimeoutException) else "unavailable"
        problem = endpoint.hide(str(error) or type(error).__name__)
        raise TeacherError(f"{endpoint.name} cannot be reached: {problem}", reason=reason) from None


class Relay(Response):
    """An answer from upstream, passed on as it comes: as fast as the client reads, and no longer than it stays."""

    def __init__(self, forwarder: Forwarder, path: str, body: bytes, request: Request) -> None:
        self.forwarder, self.path, self.sent, self.request = forwarder, path, body, request
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on until the answer ends or the client leaves, whichever is first; either ends both."""
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
            async with self.forwarder.ask(self.path, self.sent, self.request) as (endpoint, answer):
                headers = [(k.lower(), v) for k, v in answer.headers.raw if k.lower().decode() not in _HOP_BY_HOP]
                if answer.is_error:
                    refusal = await _refusal(endpoint, answer)
                    await refusal(scope, receive, send)
                    return
                headers.append((b"x-tracer-decision", b"forwarded"))
                await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
                async for part in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TeacherError as error:
            why = error.reason.replace("_", " ")
            problem = f"this call was passed on, and the teacher's endpoint did not answer: {why}"
            await respond(RefusalError(503, problem, code="upstream_unavailable"))(scope, receive, send)


async def _refusal(endpoint: ForwardTarget, answer: httpx.Response) -> Response:
    """Pass an upstream error on, without the secrets that some servers quote in it."""
    read = b""
    with suppress(httpx.HTTPError):  # cut short or garbled: the status says most
        async for part in answer.aiter_bytes():
            read += part
            if len(read) > _MOST_OF_AN_ERROR:
                break
    kept = {k: v for k, v in answer.headers.items() if k in _OF_AN_ERROR or k.startswith("x-ratelimit-")}
    said = endpoint.hide(read[:_MOST_OF_AN_ERROR].decode("utf-8", "replace"))
    return Response(said, answer.status_code, kept | {"x-tracer-decision": "forwarded"})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
