"""The BentoML service of some tasks, through BentoML's public interface.

The tasks' own application answers every request before BentoML's router does: `Front` is the innermost of BentoML's
middlewares, and hands requests over. So routes, keys, limits and errors are those of `tracer-serve TASK.yaml`.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from tracer_serve.config.load import Task
from tracer_serve.errors import TracerServeError
from tracer_serve.server.http.auth import Loopback
from tracer_serve.server.http.connection_limits import bound_uvicorn
from tracer_serve.server.process.handshake import METRICS
from tracer_serve.server.process.task_set import load_tasks
from tracer_serve.server.process.worker import application_of, prepare_process, started
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.server.routes.response_models import ClassifyResponse

_TIMEOUT_S = 630
"""BentoML answers 504 after this; longer than any call of ours takes."""


class Classifier:
    """Classify texts with a certified surrogate, and with its teacher where the certificate does not reach."""

    @bentoml.api(route="/v1/classify", input_spec=ClassifyRequest, output_spec=ClassifyResponse)  # type: ignore[untyped-decorator]
    def classify(self, **request: Any) -> Any:
        """Classify one text or many."""
        raise NotImplementedError(f"`Front` answers this route, over HTTP: {sorted(request)}")


def make_service(tasks: Sequence[Task], *, carried: Path | None = None, image: Any = None) -> Any:
    """Return the BentoML service of a task, or of several side by side.

    Parameters
    ----------
    carried : folder with the version that a bento brings along, installed where the state folder has none
    image : a `bentoml.images.Image` to containerize it in

    Examples
    --------
    A module with ``svc = make_service(load_tasks([Path("task.yaml")]))`` is served by ``bentoml serve MODULE:svc``.
    """
    bound_uvicorn()
    _share_metrics()
    # BentoML restarts no worker in a container, where several would die one by one before the container is restarted
    os.environ.pop("BENTOML_CONTAINERIZED", None)
    application = Starlette(lifespan=_lifespan(tasks, carried))
    service: Any = bentoml.service(
        name=tasks[0].spec.name if len(tasks) == 1 else "tracer-serve",
        image=image,
        workers=tasks[0].spec.server.workers,
        traffic={"timeout": _TIMEOUT_S},
        metrics={"enabled": False},
        tracing={"excluded_urls": ".*"},
        logging={"access": {"enabled": False}},
    )(Classifier)
    service.mount_asgi_app(application)
    service.add_asgi_middleware(Front, application=application)
    return service


def tasks_or_exit(paths: str) -> tuple[Task, ...]:
    """Load the tasks at some paths, separated as in ``PATH``, or exit with one line that says what is wrong."""
    try:
        return load_tasks([Path(path) for path in paths.split(os.pathsep)])
    except TracerServeError as error:
        raise SystemExit(f"error: {error}") from None  # BentoML would print a traceback


def _share_metrics() -> None:
    """Make a folder for the metrics of one server's workers: BentoML's own is shared by all servers of a machine."""
    if METRICS not in os.environ:  # set by the supervisor for its workers
        os.environ[METRICS] = tempfile.mkdtemp(prefix="tracer-serve-")
        atexit.register(shutil.rmtree, os.environ[METRICS], ignore_errors=True)


class Front:
    """ASGI middleware that hands requests to our application, and the lifespan to BentoML.

    Parameters
    ----------
    application : mounted in BentoML, which enters its lifespan
    """

    def __init__(self, app: ASGIApp, application: Starlette) -> None:
        self._app, self._application = app, application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or start and stop."""
        if scope["type"] == "http":
            await self._application.state.front(scope, receive, send)
        else:
            await self._app(scope, receive, started(send))


def _lifespan(tasks: Sequence[Task], carried: Path | None) -> Any:
    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        """Make what answers requests, in workers only: BentoML's supervisor imports the service too."""
        prepare_process(tasks)
        if carried is not None:
            from tracer_serve.server.bento.carried import settle  # noqa: PLC0415  # imports the version store

            for task in tasks:
                settle(task, carried)
        app = application_of(tasks)
        # BentoML chose the address: tracer-serve's own check of it (`require_keys`) was not made
        open_ = os.environ.get("TRACER_SERVE_INSECURE") or all(task.spec.server.api_keys for task in tasks)
        application.state.front = app if open_ else Loopback(app)
        async with app.router.lifespan_context(app):
            yield

    return lifespan
