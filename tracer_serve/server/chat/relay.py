"""Stream an upstream answer to the client, and learn from it."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tracer_serve.errors import EndpointError, TeacherError
from tracer_serve.infra.resilience.retry import LONGEST_WAIT_S, retry_after
from tracer_serve.server.chat.forward import Forwarder, ForwardTarget, passed_on
from tracer_serve.server.http.client_presence import while_connected
from tracer_serve.server.http.errors import RefusalError, respond

LARGEST_LEARNED = 1_000_000
"""Maximum number of bytes of an answer to learn from."""

MOST_OBSERVED = 64_000
"""Maximum number of bytes of an answer to observe."""

_MOST_OF_AN_ERROR = 64_000  # bytes of a refusal that are read, to redact secrets in it
_STREAMED = frozenset({200, 201, 202, 204, 206})
_HIGHEST_STATUS = 599
_OF_AN_ERROR = {"content-type", "retry-after", "retry-after-ms", "x-request-id", "x-should-retry"}
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    *("upgrade", "server", "date", "set-cookie"),  # the last three are the upstream server's own
}
_EVENTS = "text/event-stream"


class Learner(Protocol):
    """Receiver of the outcome of a forwarded call."""

    async def answered(self, body: bytes, *, stream: bool) -> None:
        """Receive the body of a complete answer with status 200."""

    async def failed(self, error: TeacherError) -> Response | None:
        """Receive the reason of a failure; may return the client's answer if upstream gave none."""


class Observer(Protocol):
    """Receiver of the answer to a forwarded call, which it neither delays nor changes."""

    def completed(self, body: bytes, *, stream: bool) -> None:
        """Receive the body of a complete, uncompressed answer of at most `MOST_OBSERVED` bytes."""


class Relay(Response):
    """Streaming response from upstream, as fast as the client reads, until the client leaves.

    An answer that is no stream is held back until the learner has taken it, so that its label is on disk before it is
    sent.

    Parameters
    ----------
    headers : of the answer, beside upstream's
    learner : takes the answer to a call of the task
    observer : looks at the answer to another call
    """

    def __init__(
        self,
        forwarder: Forwarder,
        path: str,
        body: bytes,
        request: Request,
        *,
        headers: Mapping[str, str],
        learner: Learner | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.forwarder, self.path, self.sent, self.request = forwarder, path, body, request
        self.added, self.learner, self.observer = dict(headers), learner, observer
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward until the answer ends or the client leaves; either ends both."""
        await while_connected(receive, self._pass(scope, receive, send))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        own, query = self.learner is not None, self.request.scope.get("query_string", b"")
        headers = passed_on(self.request)
        # this answer is read, so it must not be compressed
        wanted = "identity" if self.learner else self.request.headers.get("accept-encoding", "identity")
        headers.append((b"accept-encoding", wanted.encode("latin-1").strip()))
        try:
            async with self.forwarder.ask(self.path, self.sent, headers, query, own=own) as (endpoint, answer):
                if answer.status_code in _STREAMED:
                    await self._stream(answer, send)
                else:
                    await self._refuse(endpoint, answer, scope, receive, send)
        except RefusalError as refusal:
            await respond(refusal)(scope, receive, send)
        except httpx.HTTPError:  # in the middle of an answer, so the client's answer ends there as well
            if self.learner is not None:
                await self.learner.failed(TeacherError("the answer was cut short", reason="unavailable"))
            raise
        except TeacherError as error:
            instead = None if self.learner is None else await self.learner.failed(error)
            why = error.reason.replace("_", " ")
            problem = f"this call was forwarded, and the teacher's endpoint did not answer: {why}"
            refused = respond(RefusalError(503, problem, code="upstream_unavailable", headers=self.added))
            await (instead or refused)(scope, receive, send)

    async def _stream(self, answer: httpx.Response, send: Send) -> None:
        headers = [(k.lower(), v) for k, v in answer.headers.raw if k.lower().decode() not in _HOP_BY_HOP]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in self.added.items()]
        start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        parts, stream = answer.aiter_raw(), answer.headers.get("content-type", "").startswith(_EVENTS)
        read, most = bytearray(), 0
        if self.learner is not None and not stream:
            first = await _held_back(parts)
            await self._learn(first, stream=False)
            await send(start)
            await send({"type": "http.response.body", "body": first, "more_body": True})
        else:
            most = LARGEST_LEARNED if self.learner is not None else MOST_OBSERVED if self.observer is not None else 0
            await send(start)
        async for part in parts:
            if most and len(read) <= most:
                read += part
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if most and self.learner is not None:
            await self._learn(bytes(read), stream=True)
        elif self.observer is not None and len(read) <= most and "content-encoding" not in answer.headers:
            self.observer.completed(bytes(read), stream=stream)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _learn(self, body: bytes, *, stream: bool) -> None:
        assert self.learner is not None
        if len(body) <= LARGEST_LEARNED:
            await self.learner.answered(body, stream=stream)
        else:
            await self.learner.failed(TeacherError("the answer is too long for a label", reason="unknown_label"))

    async def _refuse(
        self, endpoint: ForwardTarget, answer: httpx.Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Pass an upstream refusal on, without the secrets that some servers quote in it."""
        if self.learner is not None:
            await self.learner.failed(_error_of(answer))
        if answer.status_code > _HIGHEST_STATUS:
            problem = f"the teacher's endpoint answered with the status {answer.status_code}, which HTTP does not have"
            await respond(RefusalError(502, problem, code="upstream_invalid", headers=self.added))(scope, receive, send)
            return
        try:
            body = endpoint.http.body_of(answer, _MOST_OF_AN_ERROR)
            async for part in answer.aiter_raw():
                body.add(part)
            said = body.masked()
        except (httpx.HTTPError, EndpointError):  # cut short, garbled or endless: the status says most
            said = b""
        kept = _kept(answer, endpoint.http.hide)
        await Response(said, answer.status_code, kept | self.added)(scope, receive, send)


async def _held_back(parts: AsyncIterator[bytes]) -> bytes:
    """Read an answer, or the beginning of one that is too long to learn from."""
    read = bytearray()
    try:
        async for part in parts:
            read += part
            if len(read) > LARGEST_LEARNED:
                break
    except httpx.HTTPError:
        raise TeacherError("the answer was cut short", reason="unavailable") from None
    return bytes(read)


def _kept(answer: httpx.Response, hide: Callable[[str], str]) -> dict[str, str]:
    """Return the headers of a refusal that are passed on; a wait beyond `LONGEST_WAIT_S` is bounded by it."""
    kept = {k: hide(v) for k, v in answer.headers.items() if k in _OF_AN_ERROR or k.startswith("x-ratelimit-")}
    for name, unit in (("retry-after", 1.0), ("retry-after-ms", 1e3)):
        wait = retry_after({name: kept.get(name, "")})
        if wait is None:
            kept.pop(name, None)
        elif wait >= LONGEST_WAIT_S:
            kept[name] = str(int(LONGEST_WAIT_S * unit))
    return kept


def _error_of(answer: httpx.Response) -> TeacherError:
    status = answer.status_code
    reason = "rejected"
    if status == httpx.codes.TOO_MANY_REQUESTS:
        reason = "rate_limited"
    elif status >= httpx.codes.INTERNAL_SERVER_ERROR or status in (408, 409, 425):
        reason = "unavailable"
    return TeacherError(f"upstream answered {status}", reason=reason, retry_after_s=retry_after(answer.headers))
