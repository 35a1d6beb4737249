"""A task that is served over a real socket, for clients that want one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from tests.service.worlds import make_version
from tests.stub_llm import StubLLM
from tracer_serve.load import Task
from tracer_serve.service.app import make_app


@contextmanager
def listening(task: Task) -> Iterator[str]:
    """Serve a task in a thread; yields the ``base_url`` for OpenAI's clients."""
    config = uvicorn.Config(make_app(task, schedule=False), port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="served-task", daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture
def base_url(task: Callable[..., Task], stub_llm: StubLLM) -> Iterator[str]:
    """Where a task with a certified version listens; what is not its own goes to the stub, which answers `blue`."""
    spec = task()
    make_version(spec)
    stub_llm.default = "blue"
    with listening(spec) as url:
        yield url
