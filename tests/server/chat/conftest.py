"""A task that is served over a real socket, for clients that want one."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
import uvicorn
from starlette.applications import Starlette

from tests.server.worlds import HANDLED, make_version
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.server.app import make_app
from tracer_serve.server.http.connection_limits import BoundedProtocol


class Client(Protocol):
    """A client that keeps connections."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Client)
_clients = list[Client]()


@contextmanager
def running_app(app: Starlette, protocol: type[BoundedProtocol] = BoundedProtocol) -> Iterator[str]:
    """Run an application in a thread; yields its root."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none", http=protocol))
    thread = threading.Thread(target=server.run, name="served-task", daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@contextmanager
def listening(task: Task) -> Iterator[str]:
    """Serve a task in a thread; yields the ``base_url`` for OpenAI's clients."""
    with running_app(make_app(task, schedule=False)) as root:
        yield f"{root}/v1"


def closed_later(client: C) -> C:
    """Return a client, closed after the test: freed with open sockets, it would warn in whatever test runs then."""
    _clients.append(client)
    return client


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close the clients of the test."""
    yield
    while _clients:
        _clients.pop().close()


def write_form(folder: Path, stub: StubLLM, name: str, ask: Callable[[str], object], text: str = HANDLED) -> Path:
    """Record one call of a client, as an operator would: its body, with ``{text}`` in place of the text.

    Parameters
    ----------
    ask : makes the call about `text`, given a ``base_url``
    """
    stub.default = "red"
    ask(stub.url)
    body = stub.requests[0]["body"]
    stub.reset()
    file = folder / f"{name}.json"
    file.write_text(json.dumps(body).replace(text, "{text}"), encoding="utf-8")
    return file


@pytest.fixture
def known(task: Callable[..., Task], tmp_path: Path, stub_llm: StubLLM) -> Iterator[Callable[..., str]]:
    """Serves a task with a certified version to which the calls of some clients are known; returns its ``base_url``."""
    with ExitStack() as stack:

        def serve(*asks: Callable[[str], object]) -> str:
            files = [write_form(tmp_path, stub_llm, f"form-{i}", ask) for i, ask in enumerate(asks)]
            forms = [{"name": file.stem, "request": file.name, "same_as": "teacher"} for file in files]
            spec = task(forms=forms)
            make_version(spec)
            stub_llm.default = "blue"
            return stack.enter_context(listening(spec))

        yield serve


@pytest.fixture
def base_url(task: Callable[..., Task], stub_llm: StubLLM) -> Iterator[str]:
    """Where a task with a certified version listens; what is not its own goes to the stub, which answers `blue`."""
    spec = task()
    make_version(spec)
    stub_llm.default = "blue"
    with listening(spec) as url:
        yield url
