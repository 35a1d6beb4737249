"""A Host allow-list for servers without API keys, against DNS rebinding.

A web page can resolve its own name to 127.0.0.1 and then read the answers of a local server. The browser still sends
the page's name as ``Host``, so a server that answers only under known names is safe.
"""

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from tracer_serve.config.server import ServerSpec
from tracer_serve.server.http.auth import OPEN
from tracer_serve.server.http.errors import RefusalError, respond

_LOCAL = "localhost"


class AllowedHosts:
    """ASGI middleware that refuses requests under an unknown host name with 421.

    IP addresses and localhost are always allowed, and so are probes (`OPEN`).

    Parameters
    ----------
    servers : server blocks of the tasks; their `host` and `allowed_hosts` are allowed
    """

    def __init__(self, app: ASGIApp, servers: Sequence[ServerSpec]) -> None:
        self._app = app
        names = {name for server in servers for name in (server.host, *server.allowed_hosts)}
        self._names = {_LOCAL} | {name.lower().rstrip(".") for name in names}
        self._seen: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            host = next((value for name, value in scope["headers"] if name == b"host"), None)
            if host is not None and not self._allows(host):
                problem = (
                    f"this server has no API keys and does not answer under the name {_name_of(host)[:64]!r};"
                    " add it to server.allowed_hosts, or set server.api_keys"
                )
                await respond(RefusalError(421, problem, code="unknown_host"))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _allows(self, host: bytes) -> bool:
        if host in self._seen:
            return True
        name = _name_of(host)
        allowed = name in self._names or name.endswith(f".{_LOCAL}") or _is_address(name)
        if allowed and len(self._seen) < 1_000:  # noqa: PLR2004  # ports and names that clients really use
            self._seen.add(host)
        return allowed


def _name_of(host: bytes) -> str:
    """Return the host of ``host:port`` or ``[address]:port``."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
