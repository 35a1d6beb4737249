"""A worker that starts ahead of its supervisor: each imports for seconds, and side by side that takes half as long.

The two talk through a pair of sockets. The supervisor asks the worker to prepare, once nothing is wrong with the YAML;
the worker tells what it found in one line of JSON, starts, and waits for the socket that requests come in by.
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

import psutil

from tracer_serve.errors import TracerServeError

WORKER = "tracer_serve.server.process.worker"
TASK = "TRACER_SERVE_TASK"
METRICS = "TRACER_SERVE_METRICS"
CARRIED = "TRACER_SERVE_CARRIED"
"""Names the folder of what a bento brings along."""
_PREPARE, _SERVE = b"p", b"s"
_PATIENCE_S = 15  # to end what was begun


@contextmanager
def announced(files: Sequence[Path]) -> Iterator[None]:
    """Say to the processes to come which tasks they serve, and give them a folder to count in."""
    scratch = Path(tempfile.mkdtemp(prefix="tracer-serve-"))
    before = dict(os.environ)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ.setdefault("BENTOML_HOME", str(scratch / "bentoml"))
    os.environ[TASK] = os.pathsep.join(map(str, files))
    os.environ[METRICS] = str(scratch)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(scratch, ignore_errors=True)


class FailedError(TracerServeError):
    """What a worker that prepares found to be wrong, in its words and with its exit code."""

    def __init__(self, problem: str, exit_code: int) -> None:
        self.exit_code = exit_code  # type: ignore[misc]  # as the error had that the worker met
        super().__init__(problem)


class WorkerHandle:
    """A worker, as the process that started it sees it.

    Parameters
    ----------
    module : what it runs, with the number of its end of the pair as the only argument; the environment names its tasks
    """

    def __init__(self, module: str = WORKER) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self.process = psutil.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                # what counts has to know where before it is imported
                env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": os.environ[METRICS]},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # the terminal's ctrl-c is for the supervisor, which tells the worker
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker, unless it serves."""
        self.end()

    def end(self) -> None:
        """End it, unless it has been handed over."""
        if self._line.fileno() < 0:
            return
        self._line.close()
        with suppress(psutil.NoSuchProcess):  # it ended by itself, and BentoML has noticed
            self.process.terminate()
        self.process.wait(_PATIENCE_S)

    def prepare(self) -> None:
        """Let it check its tasks, import their traces and look for their versions."""
        with suppress(ConnectionError):  # it has ended already, as `told` will find
            self._line.send(_PREPARE)

    def told(self) -> Any:
        """Wait for what it found when it prepared.

        Raises
        ------
        FailedError
            Where that is an error.
        RuntimeError
            Where it ended without a word.
        """
        line = ""
        with self._line.makefile(encoding="utf-8") as lines, suppress(ConnectionError):
            line = lines.readline()
        if not line:
            raise RuntimeError(f"the worker ended early, with {self.process.wait()}; its words stand above")
        found = json.loads(line)
        if "error" in found:
            raise FailedError(found["error"], found["exit_code"])
        return found["found"]

    def hand_over(self, fd: int) -> None:
        """Let it serve what comes in by a listening socket."""
        socket.send_fds(self._line, [_SERVE], [fd])
        self._line.close()


class SupervisorLink:
    """The worker's end.

    Parameters
    ----------
    fd : its number
    """

    def __init__(self, fd: int) -> None:
        self._line = socket.socket(fileno=fd)

    def may_prepare(self) -> bool:
        """Wait for the word; False where the supervisor is gone or does not want this worker any more."""
        return self._line.recv(1) == _PREPARE

    def tell(self, found: Any) -> None:
        """Tell what was found."""
        self._send({"found": found})

    def fail(self, error: TracerServeError) -> None:
        """Tell what is wrong."""
        self._send({"error": str(error), "exit_code": error.exit_code})

    def listening(self) -> socket.socket | None:
        """Wait for the socket that requests come in by; None where the supervisor is gone."""
        _, fds, _, _ = socket.recv_fds(self._line, 1, 1)
        self._line.close()
        return socket.socket(fileno=fds[0]) if fds else None

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the supervisor is gone, as `listening` will find
            self._line.sendall(json.dumps(message).encode() + b"\n")
