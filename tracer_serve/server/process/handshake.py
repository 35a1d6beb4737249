"""Start a worker process before its supervisor is ready, and talk to it.

Each of the two imports for about a second; side by side that takes half as long. They talk through a pair of sockets:

1. The supervisor sends "prepare" once the YAML is known to be valid, to the first worker only.
2. That worker checks its tasks and sends what it found as a line of JSON.
3. The supervisor sends the listening socket; a spare worker waits for it until it is needed.
4. The worker loads its versions, sends "ready", and accepts connections.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tracer_serve.errors import TracerServeError

WORKER = "tracer_serve.server.process.worker"
TASK = "TRACER_SERVE_TASK"
METRICS = "TRACER_SERVE_METRICS"
_PREPARE, _SERVE, _READY = b"p", b"s", b"r"
_PATIENCE_S = 15  # for a worker to end


@contextmanager
def announced(files: Sequence[Path]) -> Iterator[None]:
    """Set the environment of worker processes: their tasks, and a folder for the metrics that they share."""
    scratch = Path(tempfile.mkdtemp(prefix="tracer-serve-"))
    before = dict(os.environ)
    os.environ[TASK] = os.pathsep.join(map(str, files))
    os.environ[METRICS] = str(scratch)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(scratch, ignore_errors=True)


class FailedError(TracerServeError):
    """An error that a worker met while it prepared, with its message and exit code."""

    def __init__(self, problem: str, exit_code: int) -> None:
        self.exit_code = exit_code  # type: ignore[misc]  # as the error had that the worker met
        super().__init__(problem)


class WorkerHandle:
    """A worker process, as its supervisor sees it.

    Parameters
    ----------
    module : the module to run, with the file descriptor of its socket as the only argument
    """

    def __init__(self, module: str = WORKER) -> None:
        self._line, theirs = socket.socketpair()
        self._serves = self._ready = False
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # ours
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                # prometheus_client reads it when it is imported
                env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": os.environ[METRICS]},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a terminal's ctrl-c goes to the supervisor only, which stops its workers
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker, unless it serves."""
        self.end()

    def end(self) -> None:
        """End the worker, unless it serves."""
        if self._serves:
            return
        self._line.close()
        self.process.terminate()
        self.process.wait(_PATIENCE_S)

    def prepare(self) -> None:
        """Tell the worker to check its tasks, import their traces and look for their versions."""
        with suppress(ConnectionError):  # it has ended already, as `wait_report` will find
            self._line.send(_PREPARE)

    def wait_report(self) -> Any:
        """Wait for what the worker found when it prepared.

        Raises
        ------
        FailedError
            If it met an error.
        RuntimeError
            If it ended without an answer.
        """
        line = ""
        with self._line.makefile(encoding="utf-8") as lines, suppress(ConnectionError):
            line = lines.readline()
        if not line:
            raise RuntimeError(f"the worker ended early, with {self.process.wait()}; its output is above")
        found = json.loads(line)
        if "error" in found:
            raise FailedError(found["error"], found["exit_code"])
        return found["found"]

    def hand_over(self, fd: int) -> None:
        """Let the worker accept connections on a listening socket; from here on its supervisor ends it."""
        self._serves = True
        with suppress(ConnectionError):  # it has ended already, as its supervisor will find
            socket.send_fds(self._line, [_SERVE], [fd])

    def was_ready(self) -> bool:
        """Return whether the worker has accepted connections."""
        with suppress(BlockingIOError, ConnectionError):
            self._ready = self._ready or self._line.recv(1, socket.MSG_DONTWAIT) == _READY
        return self._ready


class SupervisorLink:
    """A worker's connection to its supervisor.

    Parameters
    ----------
    fd : file descriptor of its socket
    """

    def __init__(self, fd: int) -> None:
        self._line = socket.socket(fileno=fd)

    def may_prepare(self) -> bool:
        """Wait for "prepare"; False if the supervisor has ended, or does not need this worker."""
        return self._line.recv(1) == _PREPARE

    def tell(self, found: Any) -> None:
        """Send what was found."""
        self._send({"found": found})

    def fail(self, error: TracerServeError) -> None:
        """Send an error."""
        self._send({"error": str(error), "exit_code": error.exit_code})

    def listening(self) -> socket.socket | None:
        """Wait for the listening socket; None if the supervisor has ended."""
        _, fds, _, _ = socket.recv_fds(self._line, 1, 1)
        return socket.socket(fileno=fds[0]) if fds else None

    def report_ready(self) -> None:
        """Tell the supervisor that this worker accepts connections; nothing else will be said."""
        with suppress(ConnectionError):
            self._line.send(_READY)
        self._line.close()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the supervisor has ended, as `listening` will find
            self._line.sendall(json.dumps(message).encode() + b"\n")
