"""Open a task's version store and trace store."""

from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from tracer_serve.config.load import Task
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.storage.versions.digests import ManifestDigests
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.object_store import Objects
from tracer_serve.storage.versions.pointer import Current
from tracer_serve.storage.versions.remote import ObjectStoreVersions
from tracer_serve.storage.versions.store import VersionStore


def open_versions(task: Task, store: TraceStore | None = None, holder: str | None = None) -> VersionStore:
    """Return the version store of a task.

    Parameters
    ----------
    store : the task's trace store, if it is open; otherwise it is opened for each access
    holder : the refit that activates, by its name in the lease; None: a person
    """

    def opened() -> AbstractContextManager[TraceStore]:
        return closing(open_store(task.database, task.spec.name)) if store is None else nullcontext(store)

    local, url, digests = task.state / "versions", task.spec.versions.url, ManifestDigests(opened)
    if url is None:
        return LocalVersions(local, digests)
    protocol, found, path = url.partition("://")
    if not found or protocol in ("file", "local"):
        return LocalVersions(Path(path if found else url).resolve() / task.spec.name, digests)
    objects = Objects(f"{url.rstrip('/')}/{task.spec.name}")
    return ObjectStoreVersions(local, objects, Current(opened, holder), digests)


def store_of(task: Task) -> TraceStore:
    """Open the task's trace store."""
    return open_store(task.database, task.spec.name)
