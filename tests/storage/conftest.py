"""Stores on real databases: a SQLite file, and Postgres where there is a server."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.storage.traces.make import Workers
from tracer_serve.storage.traces import TraceStore, open_store

_tasks = (f"task_{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """Three processes that race."""
    processes = Workers(3)
    yield processes
    processes.close()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a store may be; each test that takes this runs on both databases."""
    if request.param == "sqlite":
        return tmp_path / "traces.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def task() -> str:
    """A task of this test's own."""
    return next(_tasks)


@pytest.fixture
def opened(location: Path | str, task: str) -> Iterator[Callable[[], TraceStore]]:
    """Opens the same store once more, as another process would; all are closed at the end."""
    stores: list[TraceStore] = []

    def one_more() -> TraceStore:
        stores.append(open_store(location, task))
        return stores[-1]

    yield one_more
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], TraceStore]) -> TraceStore:
    """An empty store."""
    return opened()


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[TraceStore]:
    """An empty store on SQLite, for what does not depend on the database."""
    opened_store = open_store(tmp_path / "traces.db", "task")
    yield opened_store
    opened_store.close()
