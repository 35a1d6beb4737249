"""One of several tasks in one server."""

from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request

from tracer_serve.config.load import Task
from tracer_serve.server.chat.route import Chat
from tracer_serve.server.http.api_keys import Keys, presented_key
from tracer_serve.server.http.auth import unknown_key
from tracer_serve.serving.runtime import Runtime


@dataclass(frozen=True, slots=True)
class MountedTask:
    """A task with an application of its own: keys, limits, store, versions and schedule."""

    task: Task
    app: Starlette
    keys: Keys = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", Keys(self.task.spec.server.api_keys))

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.spec.name

    @property
    def runtime(self) -> Runtime:
        """The runtime of the application while it runs."""
        runtime: Runtime = self.app.state.runtime
        return runtime

    @property
    def chat(self) -> Chat:
        """Its chat route: how it recognises its calls, and where it forwards others."""
        chat: Chat = self.app.state.chat
        return chat


def open_tasks(request: Request) -> tuple[MountedTask, ...]:
    """Return the tasks that the caller's key may use; the others are not disclosed.

    Raises
    ------
    RefusalError
        401 if there are none.
    """
    given = presented_key(request.headers)
    # compare with all keys of all tasks, so that the time reveals nothing
    known = [mount.keys.caller(given) is not None for mount in request.app.state.tasks]
    opened = [
        has_key or not mount.task.spec.server.api_keys
        for mount, has_key in zip(request.app.state.tasks, known, strict=True)
    ]
    found = tuple(mount for mount, open_ in zip(request.app.state.tasks, opened, strict=True) if open_)
    if not found:
        raise unknown_key(request.url.path, request.headers)
    return found
