"""Who may ask, and how often: before any route is looked at."""

import ipaddress
import math
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracer_serve.config.server import ServerSpec
from tracer_serve.infra.caller import CALLER
from tracer_serve.server.http.api_keys import Keys
from tracer_serve.server.http.errors import RefusalError, respond
from tracer_serve.server.http.rate_limit import Buckets, Left

OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths for probes and scrapers: aggregates, no text of anybody's."""


class Guard:
    """ASGI middleware that admits requests by key and counts them by caller.

    `OPEN` needs no key; ``/admin/*`` has a key of its own and checks it itself. Limits are for ``/v1/*``: by key, and
    where there are no keys by address.

    Parameters
    ----------
    server : its `api_keys`, `rate_limit` and `workers`, each of which gets its share of the limit
    """

    def __init__(self, app: ASGIApp, server: ServerSpec) -> None:
        self._app, self._keys = app, Keys(server.api_keys)
        self._buckets = None if server.rate_limit is None else Buckets(server.rate_limit / server.workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, or answer it with 401 or 429."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path in OPEN or path.startswith("/admin/"):
            await self._app(scope, receive, send)
            return
        caller = (scope.get("client") or ("",))[0]
        if self._keys:
            owner = self._keys.owner(Headers(scope=scope).get("authorization", ""))
            if owner is None:
                await respond(unknown_key(path, Headers(scope=scope)))(scope, receive, send)
                return
            caller = owner
        CALLER.set(caller)
        if self._buckets is None or not path.startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        left = self._buckets.take(caller)
        told = _told(self._buckets, left)
        if not left.allowed:
            retry = {"retry-after": str(math.ceil(left.retry_s))}
            refusal = RefusalError(429, "too many requests; Retry-After says when", code="rate_limit_exceeded")
            await respond(refusal, told | retry)(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(told)
            await send(message)

        await self._app(scope, receive, telling)


class Loopback:
    """ASGI middleware that answers this machine only, wherever the server was bound; probes are answered to all.

    For servers that others start (``bentoml serve``) with tasks that ask for no key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what came in by another address."""
        address = (scope.get("server") or ("",))[0]
        if scope["type"] == "http" and scope["path"] not in OPEN and not _is_loopback(address):
            problem = (
                "without keys this service answers its own machine only: set server.api_keys, or"
                " TRACER_SERVE_INSECURE=1 where something in front asks for keys"
            )
            await respond(RefusalError(403, problem, code="no_keys"))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # no network address: a socket in the file system


def unknown_key(path: str, headers: Headers) -> RefusalError:
    """Return the refusal of a request whose key is missing or nobody's."""
    given = "authorization" in headers
    message = "this key is not known here" if given else "send a key as `Authorization: Bearer KEY`"
    # a browser asks for the key where the answer is a page; nothing else should make it open a dialogue
    scheme = "Bearer" if path.startswith("/v1/") else 'Basic realm="tracer-serve, the key is the password"'
    code = "invalid_api_key" if given else "missing_api_key"
    return RefusalError(401, message, code=code, headers={"www-authenticate": scheme})


def _told(buckets: Buckets, left: Left) -> dict[str, Any]:
    return {
        "x-ratelimit-limit-requests": f"{buckets.per_minute:g}",
        "x-ratelimit-remaining-requests": str(left.remaining),
        "x-ratelimit-reset-requests": f"{left.reset_s:.3f}s",
    }
