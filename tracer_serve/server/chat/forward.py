"""Forward calls to the teacher's endpoint, byte by byte."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeGuard

import httpx
from starlette.requests import Request

from tracer_serve.errors import TeacherError
from tracer_serve.infra.http_endpoint import HttpEndpoint
from tracer_serve.infra.resilience.circuit_breaker import Breaker
from tracer_serve.infra.resilience.concurrency_limit import Limit
from tracer_serve.server.http.errors import RefusalError

CONCURRENCY = 64
"""Maximum number of concurrent foreign calls; a slow client may hold each open."""
_OWN_QUEUE = 256  # calls of the task that may wait for a place

Headers = list[tuple[bytes, bytes]]

_PLAIN = re.compile(r"[A-Za-z0-9._~/:@-]+")
_TIMEOUT = httpx.Timeout(20.0, read=600.0)  # between two tokens, as OpenAI's own clients allow
_ONCE = b"idempotency-key"
_PASSED_ON = {
    *(b"accept", b"content-encoding", b"content-type", _ONCE, b"traceparent"),
    *(b"openai-beta", b"openai-organization", b"openai-project", b"anthropic-version", b"anthropic-beta"),
}
_KEYS = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""Headers with the caller's key: kept only in memory, and only for the call and its audit."""


class ForwardTarget(Protocol):
    """Endpoint that calls are forwarded to; ``protocol`` is ``openai`` or ``anthropic``."""

    name: str
    protocol: str
    query: bytes
    model: str
    client: httpx.AsyncClient
    breaker: Breaker
    http: HttpEndpoint
    pass_through: bool


class Forwarder:
    """Forwards calls to the first endpoint that can be reached.

    Connections and circuit breakers are its own: neither slow readers nor calls that fail keep the teacher from
    labelling. Calls of the task have places that foreign calls cannot take. The caller's key goes only to an endpoint
    that passes keys through; others get the spec's key.

    Parameters
    ----------
    endpoints : in order of preference; one under another model's name is left out, as the body is not touched
    own : calls of the task in flight
    """

    def __init__(self, endpoints: Sequence[ForwardTarget], own: int) -> None:
        limits = httpx.Limits(max_connections=CONCURRENCY + own, keepalive_expiry=30.0)
        self._doors = [
            (
                e,
                Breaker(e.name, failures=e.breaker.failures, open_s=e.breaker.open_s),
                httpx.AsyncClient(
                    base_url=e.client.base_url, headers=e.client.headers, timeout=_TIMEOUT, limits=limits
                ),
            )
            for e in endpoints
            if e.model == endpoints[0].model
        ]
        self.model, self.protocol = endpoints[0].model, endpoints[0].protocol
        # of foreign calls a caller's share is small, as a stream may last for minutes
        self._foreign, self._own = Limit(CONCURRENCY, 0, weight=2), Limit(own, _OWN_QUEUE)

    async def close(self) -> None:
        """Close the connections."""
        for _, _, client in self._doors:
            await client.aclose()

    @asynccontextmanager
    async def ask(
        self, path: str, body: bytes, headers: Headers, query: bytes = b"", *, own: bool = False
    ) -> AsyncIterator[tuple[ForwardTarget, httpx.Response]]:
        """Send a body as it is; yields the answer once its head has come.

        Parameters
        ----------
        path : below the endpoint's root, such as ``chat/completions``; `is_plain`
        headers : as `passed_on` returns them
        own : whether it is a call of the task

        Raises
        ------
        TeacherError
            If no endpoint can be reached, or too many calls are under way.
        RefusalError
            400 where a header or the query cannot be sent.
        """
        async with (self._own if own else self._foreign).place():
            problem = TeacherError("there is no endpoint to forward calls to", reason="unavailable")
            for endpoint, breaker, client in self._doors:
                # concatenated, not joined: a path that looks like a URL would send the spec's key there
                target = client.base_url.raw_path + path.encode("ascii")
                asked = b"&".join(filter(None, (endpoint.query, query)))
                url = client.base_url.copy_with(raw_path=target + b"?" + asked if asked else target)
                kept = headers if endpoint.pass_through else [one for one in headers if one[0] not in _KEYS]
                sent = client.build_request("POST", url, content=body, headers=kept)
                try:
                    with breaker.attempt():
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


def passed_on(request: Request, *, again: bool = False) -> Headers:
    """Return the headers of a request that may be forwarded, as bytes: a header may hold any.

    Parameters
    ----------
    again : whether the call is made a second time, for an audit; it then has no idempotency key
    """
    # white space around a value is no part of it (RFC 9110, section 5.5), and httpx refuses to send it
    headers = [(name, value.strip(b" \t")) for name, value in request.headers.raw if name in _PASSED_ON | _KEYS]
    return [(name, value) for name, value in headers if not (again and name == _ONCE)]


def is_plain(path: str) -> bool:
    """Return whether a path stays below the root that it is appended to."""
    return bool(_PLAIN.fullmatch(path)) and not any(set(part) <= {"."} for part in path.split("/"))


def takes(forwarder: Forwarder | None, path: str, protocol: str | None = None) -> TypeGuard[Forwarder]:
    """Return whether an upstream takes calls of a path: Anthropic's calls go to Anthropic endpoints only.

    Parameters
    ----------
    path : below ``/v1/``
    protocol : the only one that takes them; None: by the path
    """
    if forwarder is None:
        return False
    if protocol is None:
        protocol = "anthropic" if path.partition("/")[0] == "messages" else forwarder.protocol
    return forwarder.protocol == protocol


async def _send(endpoint: ForwardTarget, client: httpx.AsyncClient, sent: httpx.Request) -> httpx.Response:
    try:
        return await client.send(sent, stream=True)
    except httpx.LocalProtocolError as error:  # the caller's headers, not the endpoint: no outage
        raise RefusalError(400, f"this call cannot be forwarded: {error}") from None
    except httpx.HTTPError as error:
        reason = "timeout" if isinstance(error, httpx.TimeoutException) else "unavailable"
        problem = endpoint.http.hide(str(error) or type(error).__name__)
        raise TeacherError(f"{endpoint.name} cannot be reached: {problem}", reason=reason) from None
