"""Start the service and wait for its end: what ``tracer-serve TASK.yaml`` does last."""

import errno
import ipaddress
import os
import shutil
import socket
import tempfile
from pathlib import Path

from tracer_serve.errors import BusyError, SpecError
from tracer_serve.load import Task
from tracer_serve.spec import ServerSpec

_GRACE_S = 10  # as `runtime.GRACE_S`, which is not imported here: the supervisor stays light
_KEEP_ALIVE_S = 30


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
    server = tasks[0].spec.server
    require_free_port(server.host, server.port)
    scratch = Path(tempfile.mkdtemp(prefix="tracer-serve-"))
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ.setdefault("BENTOML_HOME", str(scratch / "bentoml"))
    os.environ["TRACER_SERVE_TASK"] = os.pathsep.join(str(task.file.resolve()) for task in tasks)
    os.environ["TRACER_SERVE_METRICS"] = str(scratch)
    try:
        _run(address_of(server.host), server.port)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _run(host: str, port: int) -> None:
    # bentoml is imported only here, so that every other command starts without it. This is what its own command
    # calls: the public `bentoml.serve` has no timeout_graceful_shutdown
    from _bentoml_impl.server.serving import serve_http  # noqa: PLC0415

    from tracer_serve.service.entry import svc  # noqa: PLC0415

    svc.inject_config()
    serve_http(
        "tracer_serve.service.entry:svc",
        working_dir=str(Path.cwd()),
        host=host,
        port=port,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
