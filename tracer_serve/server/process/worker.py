"""A worker: the process that answers requests. BentoML supervises it; it imports nothing of BentoML itself.

``bentoml serve`` starts workers of its own, which import `tracer_serve.server.bento.service`: the same application.
"""

import asyncio
import gc
import logging
import logging.config
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import Any

from tracer_serve.config.load import Task
from tracer_serve.errors import TracerServeError
from tracer_serve.infra.parallel import cores
from tracer_serve.infra.periodic import follow_parent
from tracer_serve.server.process.handshake import METRICS, TASK, SupervisorLink
from tracer_serve.server.process.task_set import load_tasks

_KEEP_ALIVE_S = 30
_YOUNG = 10_000  # objects made between two walks over the new ones; Python has 700, which are a few requests
_LOG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s [%(levelname)s] [%(process)d] %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    },
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}},
    "loggers": {"uvicorn.error": {"level": "WARNING"}},
    "root": {"handlers": ["out"], "level": "WARNING"},
}


def tasks_named() -> tuple[Task, ...]:
    """Return the tasks that the environment names."""
    return load_tasks([Path(path) for path in os.environ[TASK].split(os.pathsep)])


def serve(tasks: Sequence[Task], line: SupervisorLink) -> None:
    """Answer requests for some tasks until told to stop, once the supervisor has handed over where they come in."""
    logging.config.dictConfig(_LOG)
    prepare_process(tasks)
    import uvicorn  # noqa: PLC0415  # all of this after the collector was told to rest

    from tracer_serve.serving.runtime import GRACE_S  # noqa: PLC0415

    application, sockets = application_of(tasks), list[socket]()

    async def front(scope: Any, receive: Any, send: Any) -> None:
        await application(scope, receive, started(send, taking_over) if scope["type"] == "lifespan" else send)

    async def taking_over() -> None:
        listening = await asyncio.to_thread(line.listening)
        if listening is None:
            os.kill(os.getpid(), signal.SIGTERM)  # as uvicorn expects to be stopped
        else:
            sockets.append(listening)

    config = uvicorn.Config(
        front,
        lifespan="on",
        http="tracer_serve.server.http.connection_limits:BoundedProtocol",
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    uvicorn.Server(config).run(sockets)  # it looks at them when the application has started


def application_of(tasks: Sequence[Task]) -> Any:
    """Return the application of a task, or of several side by side."""
    if len(tasks) == 1:
        from tracer_serve.server.app import make_app  # noqa: PLC0415

        return make_app(tasks[0])
    from tracer_serve.server.multi.app import make_apps  # noqa: PLC0415

    return make_apps(tasks)


def started(send: Any, first: Any = None) -> Any:
    """Take what a started worker holds out of the garbage collector's sight: every request paid for its walks.

    Parameters
    ----------
    first : what to wait for before the start is told
    """

    async def settle_and_send(message: Any) -> None:
        problem = sys.exc_info()[1]  # of whoever sends: Starlette would tell it by all calls that led to it
        if message["type"] == "lifespan.startup.failed" and isinstance(problem, TracerServeError):
            message["message"] = f"error: {problem}"
        if message["type"] == "lifespan.startup.complete":
            gc.freeze()  # with a few thousand objects that are garbage: to look for them takes an eighth of a second
            gc.set_threshold(_YOUNG)
            gc.enable()
            if first is not None:
                await first()
        await send(message)

    return settle_and_send


def prepare_process(tasks: Sequence[Task]) -> None:
    """Set up what belongs to a process rather than to an application."""
    workers = tasks[0].spec.server.workers
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))  # graphs and torch read it
    if METRICS in os.environ:  # before prometheus_client is imported for the first time
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[METRICS]
    from tracer_serve.server.http.request_tracing import log_as_configured  # noqa: PLC0415

    logger = logging.getLogger("tracer_serve")
    logger.setLevel(os.environ.get("TRACER_SERVE_LOG", "INFO").upper())
    log_as_configured(logger)
    # nobody reads an access log of uvicorn's, but it would format one as long as a handler might
    logging.getLogger("uvicorn.access").propagate = False
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
