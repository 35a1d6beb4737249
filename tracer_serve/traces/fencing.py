"""Values that only the holder of a lease may write."""

from typing import Any

from sqlalchemy import select

from tracer_serve.traces.leases import Leases
from tracer_serve.traces.settings import Settings
from tracer_serve.traces.tables import leases


class Fencing(Leases, Settings):
    """The part of the store where leases guard values."""

    def put_value_under(self, lease: str, holder: str, key: str, value: Any) -> bool:
        """Write a value if a lease is this holder's still; nobody else can take it before the value is there.

        A holder that was stopped for longer than its lease, and goes on after another one was let in, is refused.

        Parameters
        ----------
        value : None removes the key
        """
        with self._db.write() as connection:
            held = select(leases.c.holder).where(*self._held(lease, holder)).with_for_update()
            if connection.execute(held).first() is None:
                return False
            self._set(connection, key, value)
            return True
