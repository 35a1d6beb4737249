"""Start the service and wait for its end: what ``tracer-serve TASK.yaml`` does last."""

import errno
import gc
import importlib
import ipaddress
import socket
import warnings
from pathlib import Path
from typing import Any

from tracer_serve.config.load import Task
from tracer_serve.config.server import ServerSpec
from tracer_serve.errors import BusyError, SpecError
from tracer_serve.server.process.handshake import WorkerHandle, announced


def require_free_port(host: str, port: int) -> None:
    """Check that the address can be bound, before anything slow is done.

    Raises
    ------
    BusyError
        Where something listens there already.
    SpecError
        Where the address is not this machine's.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(address_of(host)).version == 6 else socket.AF_INET  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address_of(host), port))
        except PermissionError:
            raise SpecError(f"port {port} needs privileges; choose one from 1024 on", path="server.port") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BusyError(
                    f"port {port} on {host} is in use; set server.port to another, or see who has it:"
                    f" ss -ltnp 'sport = :{port}'"
                ) from None
            raise SpecError(f"{host} cannot be bound: {error.strerror}", path="server.host") from None


def require_keys(server: ServerSpec, *, insecure: bool, file: Path | None = None) -> None:
    """Check that nobody from outside can ask without a key, unless that is meant.

    Raises
    ------
    SpecError
        Where the address is not loopback and there are no keys.
    """
    if server.api_keys or insecure or ipaddress.ip_address(address_of(server.host)).is_loopback:
        return
    raise SpecError(
        f"{server.host} can be reached from elsewhere, and whoever reaches it may spend your teacher's money: set"
        " server.api_keys: [${NAME}], or, where something in front asks for keys, say --insecure"
        " (TRACER_SERVE_INSECURE=1)",
        file=file,
        path="server.host",
    )


def address_of(host: str) -> str:
    """Return a host as an IP address, which is what BentoML binds.

    Raises
    ------
    SpecError
        Where the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise SpecError(f"{host!r} is no address of this machine: {error.strerror}", path="server.host") from None
    # IPv4 first: what `localhost` means to most clients
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def serve(*tasks: Task) -> int:
    """Serve a task, or several side by side, until SIGTERM or SIGINT; requests in flight end first.

    Returns
    -------
    0
    """
    with announced([task.file for task in tasks]), WorkerHandle() as worker:
        return supervise(tasks[0].spec.server, worker)


def supervise(server: ServerSpec, first: WorkerHandle | None) -> int:
    """Let BentoML bind the address and keep workers there, until it is told to stop.

    Parameters
    ----------
    first : the worker that was started ahead, where there is one

    Returns
    -------
    0
    """
    require_free_port(server.host, server.port)
    bento = supervisor()
    bento.svc.inject_config()
    bento.adopt(first)
    # This is what BentoML's own command calls. How workers answer is theirs to say
    bento.serve_http(
        "tracer_serve.server.bento.service:svc",
        working_dir=str(Path.cwd()),
        host=address_of(server.host),
        port=server.port,
    )
    return 0


def supervisor() -> Any:
    """Import BentoML: more than a second, which every other command is spared."""
    collects = gc.isenabled()
    gc.disable()  # a tenth of that second
    try:
        with warnings.catch_warnings(action="ignore"):  # of BentoML's about its own libraries
            return importlib.import_module("tracer_serve.server.bento.supervisor")
    finally:
        if collects:
            gc.freeze()
            gc.enable()
