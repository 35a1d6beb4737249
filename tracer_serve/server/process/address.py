"""Resolve, check and bind the address that a server listens on."""

import errno
import ipaddress
import socket
from pathlib import Path

from tracer_serve.config.server import ServerSpec
from tracer_serve.errors import BusyError, SpecError


def bind(server: ServerSpec) -> socket.socket:
    """Bind ``server.host`` and ``server.port``; the socket does not listen yet, so connections are refused until then.

    Raises
    ------
    BusyError
        If another process has the port.
    SpecError
        If the host is not an address of this machine, or the port needs privileges.
    """
    host, port = address_of(server.host), server.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise SpecError(f"port {port} needs privileges; choose one from 1024 on", path="server.port") from None
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"port {port} on {host} is in use; set server.port to another, or find the process that has it:"
                f" ss -ltnp 'sport = :{port}'"
            ) from None
        raise SpecError(f"{host} cannot be bound: {error.strerror}", path="server.host") from None
    return listener


def require_keys(server: ServerSpec, *, insecure: bool, file: Path | None = None) -> None:
    """Check that a server reachable from other machines asks for a key.

    Parameters
    ----------
    insecure : whether the operator has allowed a server without keys

    Raises
    ------
    SpecError
        If the address is not loopback and there are no keys.
    """
    if server.api_keys or insecure or ipaddress.ip_address(address_of(server.host)).is_loopback:
        return
    raise SpecError(
        f"other machines can reach {server.host} and spend your teacher's budget: set server.api_keys: [${{NAME}}],"
        " or, where a proxy in front checks keys, pass --insecure (TRACER_SERVE_INSECURE=1)",
        file=file,
        path="server.host",
    )


def address_of(host: str) -> str:
    """Return a host name's IP address, IPv4 if it has one: what `localhost` means to most clients.

    Raises
    ------
    SpecError
        If the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise SpecError(f"{host!r} is not an address of this machine: {error.strerror}", path="server.host") from None
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
