"""Machines that share versions: each with a folder of its own, all with one object store and one trace store."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec import get_filesystem_class

from tests.storage.versions import object_store
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.storage.versions import Current, ManifestDigests, Objects, ObjectStoreVersions

Machine = Callable[..., ObjectStoreVersions]


@pytest.fixture(scope="session")
def _s3() -> Iterator[dict[str, str]]:
    if reason := object_store.missing():
        pytest.skip(reason)
    with object_store.server() as (variables, _), pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        object_store.make_bucket()
        yield variables


@pytest.fixture
def s3(_s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty folder in a bucket; the environment leads there."""
    for name, value in _s3.items():
        monkeypatch.setenv(name, value)
    get_filesystem_class("s3").clear_instance_cache()
    return f"s3://{object_store.BUCKET}/{uuid4().hex}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    """The trace store that holds `current`."""
    with ExitStack() as stack:
        opened = open_store(tmp_path / "traces.db", "task")
        stack.callback(opened.close)
        yield opened


@pytest.fixture
def url() -> str:
    """An empty folder of fsspec's memory."""
    return f"memory://{uuid4().hex}/versions"


@pytest.fixture
def machine(tmp_path: Path, store: TraceStore, url: str) -> Machine:
    """Return one machine's view of the versions, by the machine's name."""

    def opened() -> AbstractContextManager[TraceStore]:
        return nullcontext(store)

    def of(
        name: str, at: str = url, holder: str | None = None, *, patience_s: float = 30.0, orphan_s: float = 86_400.0
    ) -> ObjectStoreVersions:
        current = Current(opened, holder, patience_s=patience_s)
        digests = ManifestDigests(opened)
        return ObjectStoreVersions(tmp_path / name, Objects(at), current, digests, orphan_s=orphan_s)

    return of
