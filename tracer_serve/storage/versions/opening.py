"""Where a task's versions are: in its state folder, in a folder that is mounted everywhere, or in an object store."""

from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from tracer_serve.config.load import Task
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.storage.versions.local import Versions
from tracer_serve.storage.versions.object_store import Objects
from tracer_serve.storage.versions.pointer import Current
from tracer_serve.storage.versions.remote import SharedVersions


def open_versions(task: Task, store: TraceStore | None = None, holder: str | None = None) -> Versions:
    """Return the task's versions.

    Parameters
    ----------
    store : the task's trace store, where it is open already; else it is opened when `current` is asked for
    holder : the refit that activates, by its name in the lease; None: a person
    """
    url = task.spec.versions.url
    if url is None:
        return Versions(task.state / "versions")
    protocol, found, path = url.partition("://")
    if not found or protocol in ("file", "local"):
        return Versions(Path(path if found else url).resolve() / task.spec.name)

    def opened() -> AbstractContextManager[TraceStore]:
        return closing(open_store(task.database, task.spec.name)) if store is None else nullcontext(store)

    return SharedVersions(
        task.state / "versions", Objects(f"{url.rstrip('/')}/{task.spec.name}"), Current(opened, holder)
    )


def store_of(task: Task) -> TraceStore:
    """Open the task's trace store."""
    return open_store(task.database, task.spec.name)
