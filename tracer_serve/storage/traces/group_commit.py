"""Group commit: calls that wait for a commit share the next one, so that 64 threads pay for one sync, not 64."""

import threading
from collections.abc import Callable, Sequence

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.error_advice import refuses_values
from tracer_serve.storage.traces.rows import Row


class _Ticket:
    """One caller's rows, and what became of them."""

    __slots__ = ("added", "error", "rows", "served")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.added = 0
        self.served = False
        self.error: StoreError | None = None


class GroupCommit:
    """Commits what has queued up while the last commit ran. Nobody waits for company.

    Parameters
    ----------
    commit : writes rows in one transaction, all or nothing, and returns the ids that were there already
    """

    def __init__(self, commit: Callable[[Sequence[Row]], set[str]]) -> None:
        self._commit = commit
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._queue: list[_Ticket] = []

    def add(self, rows: Sequence[Row]) -> int:
        """Return how many rows were new, once they are on disk; raise what their commit raised."""
        ticket = _Ticket(rows)
        with self._guard:
            self._queue.append(ticket)
        with self._turn:
            if not ticket.served:
                with self._guard:
                    waiting, self._queue = self._queue, []
                # not in the queue: whoever took it was interrupted; writing a row twice is harmless
                self._serve(waiting if ticket in waiting else [*waiting, ticket])
        if ticket.error is not None:
            raise StoreError(str(ticket.error)) from ticket.error
        return ticket.added

    def _serve(self, waiting: list[_Ticket]) -> None:
        try:
            known = self._commit([row for ticket in waiting for row in ticket.rows])
        except StoreError as error:
            self._fail(waiting, error)
        else:
            for ticket in waiting:
                ticket.added, ticket.served = sum(row.id not in known for row in ticket.rows), True

    def _fail(self, waiting: list[_Ticket], error: StoreError) -> None:
        if len(waiting) > 1 and refuses_values(error):
            for ticket in waiting:  # somebody's row is at fault, not the database: the others must not suffer
                self._serve([ticket])
            return
        for ticket in waiting:
            ticket.error, ticket.served = error, True
