"""The worker process, which answers requests. It does not import BentoML.

`bentoml serve` starts BentoML's own workers, which run the same application: `tracer_serve.server.bento.service`.
"""

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tracer_serve.config.load import Task
from tracer_serve.errors import TracerServeError
from tracer_serve.infra.parallel import cores
from tracer_serve.infra.periodic import follow_parent
from tracer_serve.server.process.handshake import METRICS, TASK, SupervisorLink
from tracer_serve.server.process.logs import configure_our_log, log_to_stdout
from tracer_serve.server.process.task_set import load_tasks

_KEEP_ALIVE_S = 30
_YOUNG_OBJECTS = 10_000  # between two collections of the youngest; Python's default of 700 is a few requests


def tasks_named() -> tuple[Task, ...]:
    """Return the tasks that the environment names."""
    return load_tasks([Path(path) for path in os.environ[TASK].split(os.pathsep)])


def serve(tasks: Sequence[Task], line: SupervisorLink) -> None:
    """Import everything, wait for the listening socket, load some tasks and answer requests until SIGTERM."""
    log_to_stdout()
    prepare_process(tasks)
    import uvicorn  # noqa: PLC0415  # after the garbage collector was disabled

    from tracer_serve.serving.runtime import GRACE_S  # noqa: PLC0415

    application = application_of(tasks)

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        await application(scope, receive, started(send, line.report_ready) if scope["type"] == "lifespan" else send)

    config = uvicorn.Config(
        with_lifespan,
        lifespan="on",
        ws="none",
        http="tracer_serve.server.http.connection_limits:BoundedProtocol",
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()  # imports the protocol
    if (listener := line.listening()) is not None:
        uvicorn.Server(config).run([listener])


def application_of(tasks: Sequence[Task]) -> Any:
    """Return the application of a task, or of several side by side."""
    if len(tasks) == 1:
        from tracer_serve.server.app import make_app  # noqa: PLC0415

        return make_app(tasks[0])
    from tracer_serve.server.multi.app import make_apps  # noqa: PLC0415

    return make_apps(tasks)


def started(send: Any, report: Callable[[], None] | None = None) -> Any:
    """Wrap the `send` of a lifespan: log a failed start as one line, and freeze the heap of a started worker.

    Frozen objects are skipped by the garbage collector, whose walks over them would slow down every request.

    Parameters
    ----------
    report : called when the start has succeeded
    """

    async def settle_and_send(message: Any) -> None:
        problem = sys.exc_info()[1]  # the sender's: Starlette's message would be the whole traceback
        if message["type"] == "lifespan.startup.failed" and isinstance(problem, TracerServeError):
            message["message"] = f"error: {problem}"
        if message["type"] == "lifespan.startup.complete":
            gc.freeze()  # without a collection first, which would take an eighth of a second for little garbage
            gc.set_threshold(_YOUNG_OBJECTS)
            gc.enable()
            if report is not None:
                report()
        await send(message)

    return settle_and_send


def prepare_process(tasks: Sequence[Task]) -> None:
    """Set up threads, metrics, logging and the end of this process, which are not an application's to decide."""
    workers = tasks[0].spec.server.workers
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))  # read by onnxruntime and torch
    if METRICS in os.environ:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[METRICS]
    configure_our_log()
    logging.getLogger("uvicorn.access").propagate = False  # uvicorn formats its lines as long as a handler exists
    follow_parent(os.getppid())


def main() -> None:
    """Serve the tasks that the environment names."""
    gc.disable()  # a start makes a million objects that stay; `started` enables it again
    try:
        serve(tasks_named(), SupervisorLink(int(sys.argv[1])))
    except TracerServeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
