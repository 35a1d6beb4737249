"""Context managers for one refit: hold the lease, record the run, publish progress."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from tracer_serve.errors import BusyError, StoreError, TracerServeError
from tracer_serve.fit.progress import Progress
from tracer_serve.lifecycle.refit_history import LAST, ended_refit
from tracer_serve.storage.traces import Refit, TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE, describe_holder, live_holder, take_lease

PROGRESS = "refit.progress"
"""Key in the store: the progress of the running refit."""

_LEASE_S = 60.0
_PUBLISH_S = 1.0


@contextmanager
def lease(store: TraceStore, holder: str) -> Iterator[Callable[[], None]]:
    """Hold the refit lease and renew it in the background; yield a function that checks that it is still held.

    Raises
    ------
    BusyError
        Another refit holds the lease; or, from the check, this refit lost it.
    """
    if not take_lease(store, LEASE, holder, _LEASE_S):
        raise BusyError(
            f"another refit is under way ({describe_holder(live_holder(store, LEASE))}). Wait until it ends;"
            f" if its process died, its lease expires within {_LEASE_S:.0f} s"
        )
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_LEASE_S / 4):
            with suppress(StoreError):  # the next renewal may succeed; `require` checks the lease where it matters
                store.leases.renew(LEASE, holder, _LEASE_S)

    def require() -> None:
        if not store.leases.renew(LEASE, holder, _LEASE_S):
            raise BusyError("this refit lost its lease to another process; its version was not activated")

    renewer = threading.Thread(target=renew, name="refit-lease", daemon=True)
    renewer.start()
    try:
        yield require
    finally:
        done.set()
        renewer.join()
        store.leases.release(LEASE, holder)


@contextmanager
def recorded(store: TraceStore, trigger: str) -> Iterator[Callable[[int, bool], None]]:
    """Record a refit in the history; yield a function that takes the new version and whether it certified.

    An error is recorded too, and its message becomes the last refit's message, which /healthz shows.
    """
    entry = Refit(reason=trigger)
    store.refits.record(entry)
    ended, problem = replace(entry, outcome="failed"), None

    def record(version: int, certified: bool) -> None:
        nonlocal ended
        ended = replace(entry, outcome="certified" if certified else "abstained", version=version)

    try:
        yield record
    except KeyboardInterrupt:
        ended = replace(entry, outcome="stopped")
        raise
    except TracerServeError as error:
        problem = str(error)
        raise
    finally:
        with suppress(StoreError):  # the error of the refit matters more than its record
            store.refits.record(replace(ended, ended=datetime.now(UTC)))
            if problem is not None:  # after the entry: of the two, the later one is shown
                store.values.put(LAST, ended_refit(trigger, "failed", None, problem))


@contextmanager
def published(store: TraceStore, progress: Progress) -> Iterator[Progress]:
    """Forward progress to a callback, and write it to the store once a second."""
    last = -_PUBLISH_S

    def publish(stage: str, done: int, total: int, left_s: float | None = None, /) -> None:
        nonlocal last
        progress(stage, done, total, left_s)
        if time.monotonic() > last + _PUBLISH_S:
            last = time.monotonic()
            with suppress(StoreError):
                store.values.put(PROGRESS, {"stage": stage, "done": done, "total": total, "left_s": left_s})

    try:
        yield publish
    finally:
        with suppress(StoreError):
            store.values.put(PROGRESS, None)
