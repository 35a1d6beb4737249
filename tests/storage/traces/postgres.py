"""A private Postgres server for the tests: own folder, free port, no privileges, gone afterwards."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def missing() -> str | None:
    """Why there can be no server here, None if there can."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed: pip install '.[postgres]' in a checkout of tracer-serve"
    if _programs() is None:
        return "no Postgres server here: apt-get install postgresql"
    if os.geteuid() == 0 and _user() is None:
        return "Postgres does not run as root, and there is no user postgres or nobody"
    return None


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of the database `postgres` of a fresh server."""
    programs = _programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="tracer-pg-"))
    port = _free_port()
    try:
        if (user := _user()) is not None:
            shutil.chown(folder, user)
        _run(programs / "initdb", "-D", folder / "data", "-U", "tracer", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"port = {port}\nlisten_addresses = '127.0.0.1'\nmax_connections = 50\n")
            settings.write(f"unix_socket_directories = '{folder}'\n")
        _start(folder / "data")
        try:
            yield f"postgresql://tracer@127.0.0.1:{port}/postgres"
        finally:
            _stop(folder / "data")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """Stop a server as if it had crashed, and start it again at the end."""
    data = _folder(url)
    _stop(data)
    try:
        yield
    finally:
        _start(data)


def set_certificate(url: str, certificate: bytes, key: bytes) -> None:
    """Restart a server with TLS and this certificate, both in PEM."""
    data = _folder(url)
    for name, content in (("server.crt", certificate), ("server.key", key)):
        (data / name).write_bytes(content)
        (data / name).chmod(0o600)
        if (user := _user()) is not None:
            shutil.chown(data / name, user)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("ssl = on\n")
    _stop(data)
    _start(data)


def _folder(url: str) -> Path:
    import psycopg  # noqa: PLC0415  # is not everywhere, see `missing`

    with psycopg.connect(url) as connection:
        found = connection.execute("SHOW data_directory").fetchone()
    assert found is not None
    return Path(found[0])


def _start(data: Path) -> None:
    _control(data, "-l", data.parent / "log", "start")


def _stop(data: Path) -> None:
    _control(data, "-m", "immediate", "stop")


def _control(data: Path, *words: Path | str) -> None:
    programs = _programs()
    assert programs is not None
    _run(programs / "pg_ctl", "-D", data, "-w", *words)


def _programs() -> Path | None:
    """Folder of pg_ctl; the newest where there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[4]))
    somewhere = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(somewhere).resolve().parent if somewhere else None


def _user() -> str | None:
    """Whom to become, since Postgres refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if os.geteuid() == 0 and name in names), None)


def _run(*command: Path | str) -> None:
    done = subprocess.run(
        [str(part) for part in command], user=_user(), cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
