"""The BentoML service: ``bentoml serve tracer_serve.server.bento.service:svc --arg task=TASK.yaml``.

BentoML starts its own workers then, each of which imports this module again; `tracer-serve` has lighter ones
(`service.worker`). It packs and supervises; every request is answered by our own application before BentoML's
middlewares, whose tracing alone costs more than our answer.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel

from tracer_serve.errors import TracerServeError
from tracer_serve.server.process.handshake import CARRIED, METRICS, TASK
from tracer_serve.server.process.task_set import load_tasks
from tracer_serve.server.process.worker import application_of, prepare_process, started


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
        try:
            return self._application(is_main)
        except TracerServeError as error:
            raise SystemExit(f"error: {error}") from None

    def _application(self, is_main: bool) -> Any:
        prepare_process(_tasks)
        from uvicorn.config import HTTP_PROTOCOLS  # noqa: PLC0415

        from tracer_serve.server.http.auth import Loopback  # noqa: PLC0415

        # BentoML makes uvicorn's configuration and does not let it be said there
        HTTP_PROTOCOLS["auto"] = "tracer_serve.server.http.connection_limits:BoundedProtocol"
        if CARRIED in os.environ:
            from tracer_serve.server.bento.carried import settle  # noqa: PLC0415

            for task in _tasks:
                settle(task, Path(os.environ[CARRIED]))
        app = application_of(_tasks)
        self.mount_asgi_app(app)
        inner = super().to_asgi(is_main=is_main)
        keyless = any(not task.spec.server.api_keys for task in _tasks)
        # nobody has looked at the address before it was bound, as our own command does
        guarded = Loopback(app) if keyless and not os.environ.get("TRACER_SERVE_INSECURE") else app

        async def front(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await inner(scope, receive, started(send))
            else:
                await guarded(scope, receive, send)

        return front


class Served:
    """Classification by a certified surrogate, and by its teacher where the certificate ends."""


if METRICS not in os.environ:
    # in the supervisor, for its workers: BentoML's own folder is one for all servers of a machine, emptied by each that
    # starts, and in a store that may not be writable
    os.environ[METRICS] = tempfile.mkdtemp(prefix="tracer-serve-")
    atexit.register(shutil.rmtree, os.environ[METRICS], ignore_errors=True)

_arguments = bentoml.use_arguments(Arguments)
try:
    _tasks = load_tasks([Path(path) for path in (os.environ.get(TASK) or _arguments.task).split(os.pathsep)])
except TracerServeError as error:
    raise SystemExit(f"error: {error}") from None  # `bentoml serve` would tell it by a screen of its own calls

svc: Any = bentoml.service(
    name=_tasks[0].spec.name if len(_tasks) == 1 else "tracer-serve",
    service_class=FrontedService,
    workers=_tasks[0].spec.server.workers,
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},
)(Served)
