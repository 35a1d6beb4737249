"""The BentoML service: ``bentoml serve tracer_serve.service.entry:svc --arg task=TASK.yaml``.

BentoML starts the workers, each of which imports this module again. It packs and supervises; every request is answered
by our own application before BentoML's middlewares, whose tracing alone costs more than our answer.
"""

import gc
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel

from tracer_serve.service.tasks import load_tasks

TASK = "TRACER_SERVE_TASK"
METRICS = "TRACER_SERVE_METRICS"
CARRIED = "TRACER_SERVE_CARRIED"
"""Folder of what a bento brings along."""

_LOOK_S = 1.0


class Arguments(BaseModel):
    """What the service needs to know.

    Parameters
    ----------
    task : path of the YAML, or of a folder of them; several as in ``PATH``. ``TRACER_SERVE_TASK`` overrides it
    """

    task: str = ""


class FrontedService(bentoml.Service):  # type: ignore[misc]  # bentoml has no usable types
    """A service whose requests go straight to our application; BentoML keeps the life cycle."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return what uvicorn runs; only workers come here, so only they import what answers requests."""
        _prepare_worker()
        from tracer_serve.service.app import make_app  # noqa: PLC0415
        from tracer_serve.service.guard import Loopback  # noqa: PLC0415
        from tracer_serve.service.many import make_apps  # noqa: PLC0415

        if CARRIED in os.environ:
            from tracer_serve.service.bento import settle  # noqa: PLC0415

            for task in _tasks:
                settle(task, Path(os.environ[CARRIED]))
        app = make_app(_tasks[0]) if len(_tasks) == 1 else make_apps(_tasks)
        self.mount_asgi_app(app)
        inner = super().to_asgi(is_main=is_main)
        keyless = any(not task.spec.server.api_keys for task in _tasks)
        # our own command has looked at the address before it was bound
        unseen = METRICS not in os.environ and not os.environ.get("TRACER_SERVE_INSECURE")
        guarded = Loopback(app) if keyless and unseen else app

        async def front(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await inner(scope, receive, _settled(send))
            else:
                await guarded(scope, receive, send)

        return front


def _settled(send: Any) -> Any:
    """Take what a started worker holds out of the garbage collector's sight: every request paid for its walks."""

    async def settle_and_send(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
        await send(message)

    return settle_and_send


def _prepare_worker() -> None:
    if METRICS in os.environ:
        # BentoML's own folder is one for all servers of a machine, and emptied by each that starts; this has to be
        # set before prometheus_client is imported for the first time
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[METRICS]
    from uvicorn.config import HTTP_PROTOCOLS  # noqa: PLC0415

    from tracer_serve.service.tracing import log_as_configured  # noqa: PLC0415

    # BentoML makes uvicorn's configuration and does not let it be said there
    HTTP_PROTOCOLS["auto"] = "tracer_serve.service.protocol:BoundedProtocol"

    logger = logging.getLogger("tracer_serve")
    logger.setLevel(os.environ.get("TRACER_SERVE_LOG", "INFO").upper())
    log_as_configured(logger)
    # nobody reads an access log of uvicorn's, but it would format one as long as a handler might
    logging.getLogger("uvicorn.access").propagate = False
    threading.Thread(target=_follow_parent, args=(os.getppid(),), name="tracer-parent", daemon=True).start()


def _follow_parent(parent: int) -> None:
    """Stop with the supervisor, even if it was killed and could not tell."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


class Served:
    """Classification by a certified surrogate, and by its teacher where the certificate ends."""


_arguments = bentoml.use_arguments(Arguments)
_tasks = load_tasks([Path(path) for path in (os.environ.get(TASK) or _arguments.task).split(os.pathsep)])

svc: Any = bentoml.service(
    name=_tasks[0].spec.name if len(_tasks) == 1 else "tracer-serve",
    service_class=FrontedService,
    workers=_tasks[0].spec.server.workers,
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},
)(Served)
