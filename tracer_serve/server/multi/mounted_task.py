"""One of several tasks that are served side by side."""

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
    """A task with the application that it would have alone: its own keys, limits, store, versions and schedule."""

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
        """What the application holds while it runs."""
        runtime: Runtime = self.app.state.runtime
        return runtime

    @property
    def chat(self) -> Chat:
        """How it recognises its calls, and where it passes others on to."""
        chat: Chat = self.app.state.chat
        return chat


def sides_of(request: Request) -> tuple[MountedTask, ...]:
    """Return the tasks that the caller's key opens. Nothing is said about the others.

    Raises
    ------
    RefusalError
        401 where there are none.
    """
    given = presented_key(request.headers)
    # compare with all keys of all tasks, so that the time reveals nothing
    known = [side.keys.caller(given) is not None for side in request.app.state.sides]
    opened = [
        has_key or not side.task.spec.server.api_keys
        for side, has_key in zip(request.app.state.sides, known, strict=True)
    ]
    found = tuple(side for side, open_ in zip(request.app.state.sides, opened, strict=True) if open_)
    if not found:
        raise unknown_key(request.url.path, request.headers)
    return found
