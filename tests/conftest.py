"""Fixtures of the whole suite; fixtures of one folder are in its own conftest."""

import gc
from collections.abc import Iterator

import hypothesis
import pytest

from tests.storage.traces import postgres
from tests.support.stub_llm import StubLLM, serve

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the proof in tests/faults be made longer."""
    parser.addoption("--kills", type=int, default=240, help="kill -9 of test_many_kills_lose_nothing")


def pytest_collection_finish() -> None:
    """Take what the imports made out of the garbage collector's sight: a collection of it takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests (``@pytest.mark.anyio``) run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def _served_stub() -> Iterator[StubLLM]:
    with serve(StubLLM()) as stub:
        yield stub


@pytest.fixture
def stub_llm(_served_stub: StubLLM) -> Iterator[StubLLM]:
    """An LLM server that knows nothing yet: set `labels`, `faults`, `script`; give `url` to clients."""
    _served_stub.reset()
    _served_stub.labels = {}
    yield _served_stub
    _served_stub.reset()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database of a private Postgres server; tests share it with a task name each."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url
