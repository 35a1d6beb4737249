"""Lets rows go that nobody labelled within a time, beside a service that writes: see `traces.pruning`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tracer_serve.errors import BusyError
from tracer_serve.storage.traces import TraceStore, first_id
from tracer_serve.storage.traces.lease_owner import in_words, live_holder, new_holder, take_lease

LEASE = "prune"
"""The lease that whoever removes rows holds."""
LEAST = timedelta(hours=1)
"""Younger rows may be about to get their label: an audit that is under way, a service that stops and starts."""

_LEASE_S = 60.0
_SHARE = 1.0  # pause as long as the batch took: others get half of the disk and of this process


def prune(
    store: TraceStore,
    older_than: timedelta,
    *,
    told: Callable[[int], None] = lambda _: None,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Remove the rows without a label that are older; return how many went.

    Parameters
    ----------
    older_than : at least `LEAST`
    told : called with the number of rows removed so far
    pause : waits so many seconds between batches, and returns True where it is time to stop; the rest goes next time

    Raises
    ------
    BusyError
        Where another process does just that, or has taken over.
    """
    holder, before = new_holder(), cutoff(older_than)
    if not take_lease(store, LEASE, holder, _LEASE_S):
        raise BusyError(
            f"old rows are being removed already ({in_words(live_holder(store, LEASE))}); it ends by itself"
        )
    removed, began = 0, time.monotonic()
    renewed = began
    try:
        for rows in store.retention.prune(before):
            removed += rows
            told(removed)
            now = time.monotonic()
            if now > renewed + _LEASE_S / 4:
                renewed = now
                if not store.leases.renew(LEASE, holder, _LEASE_S):
                    raise BusyError("another process took over the removing of old rows; nothing is lost by it")
            if pause(_SHARE * (now - began)):
                break
            began = time.monotonic()
    finally:
        store.leases.release(LEASE, holder)
    return removed


def cutoff(older_than: timedelta) -> str:
    """Return the id that all rows have a smaller one of that are older.

    Raises
    ------
    ValueError
        Where that is less than `LEAST` ago.
    """
    if older_than < LEAST:
        raise ValueError(f"rows younger than {LEAST} may be about to get their label, so they stay")
    return first_id(datetime.now(UTC) - older_than)
