"""Authentication, rights and rate limits, checked before any route is chosen."""

import ipaddress
import math
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracer_serve.config.server import ADMIN_KEY, Right, ServerSpec
from tracer_serve.infra.caller import CALLER, KEY_ID
from tracer_serve.server.http.api_keys import Caller, Keys, presented_key
from tracer_serve.server.http.errors import RefusalError, respond
from tracer_serve.server.http.rate_limit import Buckets, Left

OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths for probes and scrapers, which need no key. They show aggregates, never texts."""

ADMIN = "tracer_serve.admin"
"""Key of the ASGI scope: whether the caller has the right admin."""

OnRefused = Callable[[Scope, Caller], Awaitable[None]]
"""Callback for a refused administrative request of a known key."""


class Guard:
    """ASGI middleware that admits requests by key and right, and counts them by caller.

    `OPEN` needs no key. ``/admin/*`` needs the right admin, ``/v1/feedback`` and ``/review*`` the right feedback, and
    all else under ``/v1/`` the right ask; other pages need any key. Rate limits apply to ``/v1/*``: by key, or without
    keys by address. A server without `api_keys` requires a key under ``/admin/`` only.

    Parameters
    ----------
    server : its keys and `rate_limit`, of which each of its `workers` gets an equal share
    on_refused : records a refused administrative act
    """

    def __init__(self, app: ASGIApp, server: ServerSpec, on_refused: OnRefused) -> None:
        self._app, self._keys, self._keyed = app, Keys.of(server), bool(server.api_keys)
        self._on_refused = on_refused
        self._buckets = None if server.rate_limit is None else Buckets(server.rate_limit / server.workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, or refuse it with 401, 403 or 429."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path in OPEN:
            await self._app(scope, receive, send)
            return
        caller = (scope.get("client") or ("",))[0]
        if self._keyed or path.startswith("/admin/"):
            right = _right_of(path)
            try:
                found = self._caller(path, right, Headers(scope=scope))
            except RefusalError as refusal:
                await respond(refusal)(scope, receive, send)
                return
            if not _may(found, right):
                if right == "admin":
                    await self._on_refused(scope, found)
                await respond(_missing(right))(scope, receive, send)
                return
            caller = found.key_id
            KEY_ID.set(caller)
            scope[ADMIN] = "admin" in found.rights
        CALLER.set(caller)
        if self._buckets is None or not path.startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        left = self._buckets.take(caller)
        limits = _limit_headers(self._buckets, left)
        if not left.allowed:
            retry = {"retry-after": str(math.ceil(left.retry_s))}
            too_many = RefusalError(429, "too many requests; wait as Retry-After says", code="rate_limit_exceeded")
            await respond(too_many, limits | retry)(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(limits)
            await send(message)

        await self._app(scope, receive, telling)

    def _caller(self, path: str, right: Right | None, headers: Headers) -> Caller:
        """Return the caller of a request.

        Raises
        ------
        RefusalError
            401 for a missing or unknown key, under the admin routes 403.
        """
        given = presented_key(headers)
        if right == "admin" and not self._keys.may_anybody("admin"):
            problem = f"the admin routes are closed: no key has the right admin, and {ADMIN_KEY} is not set"
            raise RefusalError(403, problem, code="admin_closed")
        bearer = headers.get("authorization", "").lower().startswith("bearer ")
        if right == "admin" and not bearer:  # not a password that a browser remembers
            raise RefusalError(401, "send the admin key as `Authorization: Bearer KEY`", code="missing_api_key")
        found = self._keys.caller(given)
        if found is None:
            raise _missing(right) if right == "admin" else unknown_key(path, headers)
        return found


def _right_of(path: str) -> Right | None:
    """Return the right that a path needs; None if any key is enough."""
    if path.startswith("/admin/"):
        return "admin"
    if path == "/v1/feedback" or path.startswith("/review"):
        return "feedback"
    return "ask" if path.startswith("/v1/") else None


def _may(caller: Caller, right: Right | None) -> bool:
    """Return whether a caller has a right; an operator may correct answers too."""
    return right is None or right in caller.rights or (right == "feedback" and "admin" in caller.rights)


def _missing(right: Right | None) -> RefusalError:
    return RefusalError(403, f"this key does not have the right {right}", code="missing_right")


class Loopback:
    """ASGI middleware that answers only this machine, regardless of the bound address; probes are open.

    For servers that another program binds (``bentoml serve``) with tasks that have no keys.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request that arrived on another address."""
        address = (scope.get("server") or ("",))[0]
        if scope["type"] == "http" and scope["path"] not in OPEN and not _is_loopback(address):
            problem = (
                "without keys this service answers its own machine only: set server.api_keys, or"
                " TRACER_SERVE_INSECURE=1 if a proxy in front asks for keys"
            )
            await respond(RefusalError(403, problem, code="no_keys"))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # a socket in the file system has no network address


def unknown_key(path: str, headers: Headers) -> RefusalError:
    """Return the refusal of a request whose key is missing or unknown."""
    given = presented_key(headers) != ""
    message = "this key is unknown" if given else "send a key as `Authorization: Bearer KEY`"
    # makes the browser ask for the key; not for API calls
    scheme = "Bearer" if path.startswith("/v1/") else 'Basic realm="tracer-serve, the key is the password"'
    code = "invalid_api_key" if given else "missing_api_key"
    return RefusalError(401, message, code=code, headers={"www-authenticate": scheme})


def _limit_headers(buckets: Buckets, left: Left) -> dict[str, Any]:
    return {
        "x-ratelimit-limit-requests": f"{buckets.per_minute:g}",
        "x-ratelimit-remaining-requests": str(left.remaining),
        "x-ratelimit-reset-requests": f"{left.reset_s:.3f}s",
    }
