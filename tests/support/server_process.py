"""A server as a process of its own, and an environment as clean as a container's."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 120.0  # a machine under load imports slowly


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_venv(folder: Path) -> Path:
    """Make an empty virtual environment and return its folder of commands."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin"


def bare(home: Path, **settings: str) -> dict[str, str]:
    """Return an environment without the checkout, its virtual environment and its settings."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    home.mkdir(exist_ok=True)
    return kept | {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"} | settings


@contextmanager
def answering(
    words: Sequence[str], port: int, folder: Path, env: Mapping[str, str], cwd: Path | None = None
) -> Iterator[httpx.Client]:
    """Run a server, yield its client once it is ready, end it by SIGTERM and require that it says 0.

    Parameters
    ----------
    folder : where its log goes; also its working folder, unless `cwd` is another
    """
    log = folder / f"{port}.log"
    with log.open("w") as out:
        server = subprocess.Popen(words, cwd=cwd or folder, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait(client, server, log)
            yield client
        server.terminate()
        assert server.wait(30) == 0, log.read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(client: httpx.Client, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.get("/readyz").raise_for_status()
        except httpx.HTTPError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        else:
            return


def classify(client: httpx.Client, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Ask about many texts, in batches."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(texts), 500):
        answer = client.post("/v1/classify", json={"input": texts[start : start + 500]})
        answer.raise_for_status()
        found += answer.json()["data"]
    return found


def workers_at(port: int) -> set[int]:
    """Return the processes that listen on a port, without their supervisor."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}
    holders = {int(fd.parts[2]) for fd in Path("/proc").glob("[0-9]*/fd/*") if _link(fd) in sockets}
    return {pid for pid in holders if parent_of(pid) in holders}


def parent_of(pid: int) -> int:
    """Return a process's parent, 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _link(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:  # closed meanwhile
        return ""
