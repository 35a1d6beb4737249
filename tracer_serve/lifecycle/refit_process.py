"""Run a refit in a subprocess with low priority and one thread, so that it does not slow down serving."""

import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_NICENESS = 10
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_TICK_S = 0.2
_ENDED = {code for s in (signal.SIGTERM, signal.SIGINT) for code in (-s, 128 + s)}  # by itself, and by our command
_BEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class RefitResult:
    """How a refit ended.

    Parameters
    ----------
    outcome : ``certified``, ``abstained``, ``busy``, ``failed``, ``timeout`` or ``stopped``
    version : the version that it wrote; None if it wrote none
    message : one line for people
    """

    outcome: str
    version: int | None
    message: str


class RefitProcess:
    """Run ``tracer-serve refit`` as a subprocess.

    Parameters
    ----------
    file : YAML of the task
    limit_s : time limit of a refit, seconds
    memory_mb : memory limit of a refit, MB
    grace_s : seconds from SIGTERM to SIGKILL
    command : what to run instead, for tests; the trigger is appended
    """

    def __init__(
        self,
        file: Path,
        limit_s: float = 6 * 3_600.0,
        memory_mb: float | None = None,
        grace_s: float = 5.0,
        command: Sequence[str] | None = None,
    ) -> None:
        words = ("refit", str(file), "--json", "--parent", str(os.getpid()), "--trigger")
        module = (sys.executable, "-P", "-m", "tracer_serve", *words)
        self.command, self._limit_s, self._grace_s = tuple(command or module), limit_s, grace_s
        self._memory = None if memory_mb is None else int(memory_mb * 1e6)
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the running refit, and start no further one."""
        self._stop.set()

    def run(self, trigger: str, beat: Callable[[], object] = lambda: None) -> RefitResult:
        """Run one refit and wait for its end.

        Parameters
        ----------
        beat : called every quarter of a minute while it runs
        """
        if self._stop.is_set():
            return RefitResult("stopped", None, "the service is stopping")
        process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            [*self.command, trigger],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | _ONE_THREAD,
        )
        with contextlib.suppress(OSError):  # it may have ended already; the priority is optional
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        if self._memory is not None:
            with contextlib.suppress(OSError):
                # data instead of address space, which would count mapped files and libraries
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (self._memory, self._memory))
        return self._watch(process, beat)

    def _watch(self, process: "subprocess.Popen[str]", beat: Callable[[], object]) -> RefitResult:
        started = beaten = time.monotonic()
        while True:
            try:
                output, errors = process.communicate(timeout=_TICK_S)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                if self._stop.is_set():
                    return self._end(process, "stopped", "the service is stopping")
                if now - started > self._limit_s:
                    return self._end(process, "timeout", f"it took longer than {self._limit_s:.0f} s")
                if now - beaten > _BEAT_S:
                    beaten = now
                    beat()
            else:
                return _read(process.returncode, output, errors)

    def _end(self, process: "subprocess.Popen[str]", outcome: str, message: str) -> RefitResult:
        """Terminate the process, and kill it after `grace_s`; a version is written completely or not at all."""
        process.terminate()  # background processes of a shell ignore SIGINT
        try:
            process.communicate(timeout=self._grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return RefitResult(outcome, None, message)


def _read(code: int, output: str, errors: str) -> RefitResult:
    if code == 0:
        try:
            report: dict[str, Any] = json.loads(output)
            certificate = report["certificate"]
            serves = "serves" if report["activated"] else "was not activated"
            serves = "waits for approval" if report.get("waits") else serves
            message = f"version {report['version']} {serves}, coverage {certificate['coverage']:.3f}"
            return RefitResult("certified" if certificate["certified"] else "abstained", report["version"], message)
        except (ValueError, KeyError, TypeError) as error:
            return RefitResult("failed", None, f"its report cannot be read: {error!r}")
    if code in _ENDED:
        return RefitResult("stopped", None, "it was stopped by a signal")
    if code == -signal.SIGKILL:
        return RefitResult(
            "failed", None, "it was killed, perhaps by the kernel for lack of memory. Check: dmesg | tail"
        )
    lines = errors.strip().splitlines() or [f"exit code {code}"]
    lines = [line for line in lines if line.startswith(("error: ", "unexpected error: "))] or lines
    if "another refit is under way" in errors:
        return RefitResult("busy", None, lines[-1])
    return RefitResult("failed", None, lines[-1])
