"""What surrounds a refit: the lease that it holds, its entry in the history, and its progress for all to see."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from tracer_serve.errors import BusyError, StoreError
from tracer_serve.fit.dataset import Progress
from tracer_serve.storage.traces import Refit, TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE, in_words, live_holder, take_lease

PROGRESS = "refit.progress"
"""Key in the store: the progress of the running refit."""

_LEASE_S = 60.0
_TELL_S = 1.0


@contextmanager
def lease(store: TraceStore, holder: str) -> Iterator[Callable[[], None]]:
    """Hold the refit lease, renewed in the background until the block ends; yield a check that it is held still.

    Raises
    ------
    BusyError
        Where another refit holds it; by the check, where it was given away.
    """
    if not take_lease(store, LEASE, holder, _LEASE_S):
        raise BusyError(
            f"another refit is under way ({in_words(live_holder(store, LEASE))}); it ends by itself,"
            f" or at most {_LEASE_S:.0f} s after its process died"
        )
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_LEASE_S / 4):
            with suppress(StoreError):  # the next time it may work; whether it is held still is asked when it matters
                store.leases.renew(LEASE, holder, _LEASE_S)

    def require() -> None:
        if not store.leases.renew(LEASE, holder, _LEASE_S):
            raise BusyError("this refit was taken for dead and another one was let in; nothing of it serves")

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
    """Keep the refit in the history from its start; yield what takes the new version and whether it certified."""
    entry = Refit(reason=trigger)
    store.refits.record(entry)
    ended = replace(entry, outcome="failed")

    def record(version: int, certified: bool) -> None:
        nonlocal ended
        ended = replace(entry, outcome="certified" if certified else "abstained", version=version)

    try:
        yield record
    except KeyboardInterrupt:
        ended = replace(entry, outcome="stopped")
        raise
    finally:
        with suppress(StoreError):  # what the refit did or raised matters more than its entry
            store.refits.record(replace(ended, ended=datetime.now(UTC)))


@contextmanager
def told(store: TraceStore, progress: Progress) -> Iterator[Progress]:
    """Pass progress on, and put it into the store once a second."""
    last = -_TELL_S

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        progress(stage, done, total)
        if time.monotonic() > last + _TELL_S:
            last = time.monotonic()
            with suppress(StoreError):
                store.values.put(PROGRESS, {"stage": stage, "done": done, "total": total})

    try:
        yield tell
    finally:
        with suppress(StoreError):
            store.values.put(PROGRESS, None)
