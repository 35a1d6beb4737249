"""Which version serves, where several machines share versions: a value in the trace store.

Not an object beside the versions: the lease that a refit must still hold, the gate's last closing and `current` are
then in one database, so a refit that was taken for dead cannot activate anything; reading it costs microseconds, so
replicas may ask twice a second; and no store's conditional put is needed to replace it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from tracer_serve.errors import BusyError, StoreError
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE, in_words, live_holder, new_holder, take_lease

CURRENT = "versions.current"
"""The value's key: the number of the version that serves."""

_CHANGES = "versions"  # the lease of whoever says what serves, what is kept and what goes
_CHANGES_S, _PATIENCE_S = 60.0, 30.0


class Current:
    """Reads and replaces `current`.

    Parameters
    ----------
    opened : gives the trace store
    holder : the refit that activates, by its name in the lease; None: a person, who needs none
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[TraceStore]], holder: str | None = None) -> None:
        self._opened, self._holder = opened, holder

    def get(self) -> int | None:
        """Return the number of the version that serves, None before the first."""
        with self._opened() as store:
            found: int | None = store.values.get(CURRENT)
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one thread of one machine at a time say what serves, what is kept and what goes.

        Raises
        ------
        BusyError
            Where somebody else has been at it for half a minute.
        """
        holder, until = new_holder(), time.monotonic() + _PATIENCE_S
        with self._opened() as store:
            while not take_lease(store, _CHANGES, holder, _CHANGES_S):
                if time.monotonic() > until:
                    raise BusyError(
                        f"the versions are being changed by {in_words(live_holder(store, _CHANGES))}; try again. If it"
                        f" died on another machine it is in nobody's way {_CHANGES_S:.0f} s after"
                    )
                time.sleep(0.05)
            try:
                yield
            finally:
                with suppress(StoreError):  # then it runs out
                    store.leases.release(_CHANGES, holder)

    def set(self, number: int) -> None:
        """Let a version serve.

        Raises
        ------
        BusyError
            Where this is a refit whose lease another one has by now; looked at and written in one transaction.
        """
        with self._opened() as store:
            if self._holder is None:
                store.values.put(CURRENT, number)
            elif not store.values.put_under_lease(LEASE, self._holder, CURRENT, number):
                raise BusyError("this refit was taken for dead and another one was let in; nothing of it serves")
