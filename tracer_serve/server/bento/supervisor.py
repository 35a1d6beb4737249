"""BentoML as the supervisor: it binds the address, starts workers and starts them again, and passes signals on.

It would start a worker only when all of it is imported, and that worker would import BentoML once more. So the first
worker has been started before, and all of them are our own module.
"""

import time

from _bentoml_impl.server.serving import serve_http
from circus import watcher
from circus.process import Process

from tracer_serve.server.bento.service import svc
from tracer_serve.server.process.handshake import WorkerHandle

__all__ = ["adopt", "serve_http", "svc"]

_ahead: list[WorkerHandle] = []


def adopt(worker: WorkerHandle | None) -> None:
    """Let the next worker be one that runs already."""
    _ahead.extend([worker] if worker else [])


class Worker(Process):  # type: ignore[misc]  # circus has no types
    """A process of circus, BentoML's process manager, that runs our worker."""

    def spawn(self) -> None:
        """Start a worker, or take the one that was started ahead, and hand the listening socket over."""
        self.started = time.time()
        (fd,) = self.watcher._get_sockets_fds().values()  # noqa: SLF001  # as its own `spawn` finds them
        worker = _ahead.pop() if _ahead else WorkerHandle()
        worker.hand_over(fd)
        self._worker = worker.process


watcher.Process = Worker  # circus does not let it be said
