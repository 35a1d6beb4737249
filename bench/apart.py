"""Run a measurement in a separate process, so that its CPU and memory can be measured."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from tracer_serve.fit.progress import Progress

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Result:
    value: Any


def apart(work: Callable[..., R], *given: Any, progress: Progress | None = None) -> R:
    """Return ``work(*given)`` of a new process; with `progress`, which is called here, ``work(*given, progress)``."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, work, given, progress is not None), daemon=True)
    child.start()
    there.close()
    try:
        while not isinstance(message := here.recv(), _Result):
            assert progress is not None
            progress(*message)
    except EOFError:
        raise SystemExit("the measured process died; its message is above") from None
    child.join()
    value: R = message.value
    return value


def _child(connection: Connection, work: Callable[..., Any], given: tuple[Any, ...], tells: bool) -> None:
    def progress(stage: str, done: int, total: int, left_s: float | None = None, /) -> None:
        connection.send((stage, done, total, left_s))

    connection.send(_Result(work(*given, progress) if tells else work(*given)))


def peak_mb() -> float:
    """Return the peak resident memory of this process since it started its program, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says includes the parent's memory at the time of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
