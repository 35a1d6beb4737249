"""The number of the current version, a value in the trace store, for versions that several machines share.

It is not an object beside the versions: the refit's lease, the gate's last closing and `current` are in one database,
so a refit that has lost its lease cannot activate a version. Reading it takes microseconds, so replicas read it twice a
second, and replacing it needs no conditional put of an object store.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from tracer_serve.errors import BusyError, StoreError
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE, describe_holder, live_holder, new_holder, take_lease

CURRENT = "versions.current"
"""Key of the value."""

_CHANGES = "versions"  # the lease of a process that activates, pins or deletes versions
_CHANGES_S = 60.0


class Current:
    """Read and replace the number of the current version.

    Parameters
    ----------
    opened : opens the trace store
    holder : lease holder name of the refit that activates; None: a person, who needs no lease
    patience_s : seconds to wait for another process that changes versions
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[TraceStore]],
        holder: str | None = None,
        *,
        patience_s: float = 30.0,
    ) -> None:
        self._opened, self._holder, self._patience_s = opened, holder, patience_s

    def get(self) -> int | None:
        """Return the number of the version that serves, None before the first."""
        with self._opened() as store:
            found: int | None = store.values.get(CURRENT)
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lease for changing versions: one thread of one machine at a time.

        Raises
        ------
        BusyError
            If another process holds it for longer than `patience_s`.
        """
        holder, until = new_holder(), time.monotonic() + self._patience_s
        with self._opened() as store:
            while not take_lease(store, _CHANGES, holder, _CHANGES_S):
                if time.monotonic() > until:
                    raise BusyError(
                        f"the versions are being changed by {describe_holder(live_holder(store, _CHANGES))}; try again."
                        f" If it died on another machine, its lease expires within {_CHANGES_S:.0f} s"
                    )
                time.sleep(0.05)
            try:
                yield
            finally:
                with suppress(StoreError):  # then the lease expires
                    store.leases.release(_CHANGES, holder)

    def set(self, number: int) -> None:
        """Make a version the current one; for a refit, in one transaction with a check of its lease.

        Raises
        ------
        BusyError
            If this refit has lost its lease.
        """
        with self._opened() as store:
            if self._holder is None:
                store.values.put(CURRENT, number)
            elif not store.values.put_under_lease(LEASE, self._holder, CURRENT, number):
                raise BusyError("this refit lost its lease to another process; its version was not activated")
