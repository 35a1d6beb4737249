"""Delete old unlabelled rows while a service writes; see `storage.traces.pruning`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tracer_serve.errors import BusyError
from tracer_serve.storage.traces import TraceStore, first_id
from tracer_serve.storage.traces.lease_owner import describe_holder, live_holder, new_holder, take_lease

LEASE = "prune"
"""The lease of the process that deletes rows."""
LEAST = timedelta(hours=1)
"""Least age: younger rows may still receive a label, from an audit in progress or after a restart."""

_LEASE_S = 60.0
_SHARE = 1.0  # pause for as long as a batch took, so that other work gets half of the disk and of this process


def prune(
    store: TraceStore,
    older_than: timedelta,
    *,
    progress: Callable[[int], None] = lambda _: None,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Delete older rows without a label; return how many were deleted.

    Parameters
    ----------
    older_than : at least `LEAST`
    progress : called with the number of rows deleted so far
    pause : waits for some seconds between batches, and returns True to stop; the next run deletes the rest

    Raises
    ------
    BusyError
        If another process is deleting old rows, or has taken over.
    """
    holder, before = new_holder(), cutoff(older_than)
    if not take_lease(store, LEASE, holder, _LEASE_S):
        raise BusyError(
            f"old rows are being deleted already by {describe_holder(live_holder(store, LEASE))}; wait until it ends"
        )
    removed, began = 0, time.monotonic()
    renewed = began
    try:
        for rows in store.retention.prune(before):
            removed += rows
            progress(removed)
            now = time.monotonic()
            if now > renewed + _LEASE_S / 4:
                renewed = now
                if not store.leases.renew(LEASE, holder, _LEASE_S):
                    raise BusyError("another process took over the deletion of old rows; no other rows are affected")
            if pause(_SHARE * (now - began)):
                break
            began = time.monotonic()
    finally:
        store.leases.release(LEASE, holder)
    return removed


def cutoff(older_than: timedelta) -> str:
    """Return an id that is greater than the ids of all older rows.

    Raises
    ------
    ValueError
        If the age is less than `LEAST`.
    """
    if older_than < LEAST:
        raise ValueError(f"rows younger than {LEAST} may still receive a label, so they are kept")
    return first_id(datetime.now(UTC) - older_than)
