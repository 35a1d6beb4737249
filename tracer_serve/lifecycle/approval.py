"""Approval: with `versions.approve` a certified version waits until a person accepts it."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from tracer_serve.errors import ArtifactError
from tracer_serve.lifecycle.rollback import Rollback
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.store import VersionStore

WAITING = "versions.waiting"
"""Key in the store: the `WaitingVersion`."""


@dataclass(frozen=True, slots=True)
class WaitingVersion:
    """A certified version that does not serve until it is approved.

    Parameters
    ----------
    version : its number
    since : UTC, ISO 8601
    """

    version: int
    since: str


def await_approval(store: TraceStore, version: int) -> None:
    """Let a version wait; one that waited before is replaced."""
    waiting = WaitingVersion(version, datetime.now(UTC).isoformat(timespec="seconds"))
    store.values.put(WAITING, asdict(waiting))


def waiting_version(store: TraceStore, versions: VersionStore) -> WaitingVersion | None:
    """Return the version that waits for approval; None if none does, or if it serves by now."""
    stored = store.values.get(WAITING)
    if stored is None:
        return None
    found = WaitingVersion(**stored)
    return found if found.version != versions.current() and found.version in versions.numbers() else None


def approve(store: TraceStore, versions: VersionStore, version: int | None = None) -> Rollback:
    """Make the waiting version current. Running servers load it within a second.

    Parameters
    ----------
    version : its number, so that nobody approves one that they have not seen; default: whichever waits

    Raises
    ------
    ArtifactError
        If that version does not wait, or is damaged.
    """
    waiting = waiting_version(store, versions)
    if waiting is None or version not in (None, waiting.version):
        one = "no version waits" if waiting is None else f"version {waiting.version} waits, not version {version}"
        raise ArtifactError(f"{one} for approval")
    before = versions.current()
    versions.activate(waiting.version)
    store.values.compare_and_set(WAITING, asdict(waiting), None)
    return Rollback(waiting.version, before)
