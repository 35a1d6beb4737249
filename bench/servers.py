"""Servers under measurement: start them, wait for them, and measure CPU and memory of their processes."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.error import HTTPError

_PATIENCE_S = 90.0


@dataclass(slots=True)
class Server:
    """A running server.

    Parameters
    ----------
    start_s : from the start of its process to its first answer
    """

    process: "subprocess.Popen[bytes]"
    port: int
    start_s: float

    @classmethod
    def start(cls, command: Sequence[str], port: int, probe: str, env: Mapping[str, str] | None = None) -> Self:
        """Start a server and wait until it answers a GET of `probe`.

        Raises
        ------
        SystemExit
            If it ends, does not answer within 90 s, or another process answers.
        """
        if _answers(f"http://127.0.0.1:{port}{probe}"):
            raise SystemExit(f"something else answers on port {port}; end it first")
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
        while not _answers(f"http://127.0.0.1:{port}{probe}"):
            if process.poll() is not None or time.perf_counter() > began + _PATIENCE_S:
                raise SystemExit(f"{' '.join(command[:4])} does not answer on port {port}; its output is above")
            time.sleep(0.02)
        return cls(process, port, time.perf_counter() - began)

    def stop(self) -> None:
        """Stop the server; kill it if it does not stop."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def cpu_s(self) -> float:
        """CPU of its processes so far."""
        ticks = sum(_stat(pid, 13) + _stat(pid, 14) for pid in _tree(self.process.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def peak_mb(self) -> float:
        """Largest resident memory of each of its processes, added up."""
        lines = [
            line for pid in _tree(self.process.pid) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own address
            return bool(answer.status == 200)
    except HTTPError:
        return True  # a bare server has no such page, but it answers
    except OSError:
        return False


def _tree(pid: int) -> list[int]:
    children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return [pid, *(below for child in children for below in _tree(int(child)))]


def _stat(pid: int, field: int) -> int:
    """Return a field of /proc/PID/stat, counted from 0; the name before it may hold anything."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[field - 2])
