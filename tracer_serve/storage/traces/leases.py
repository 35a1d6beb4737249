"""Leases: one holder at a time over all processes and replicas, until released or run out."""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, cast, func, literal, or_, select
from sqlalchemy.sql.elements import ColumnElement

from tracer_serve.storage.traces.key_values import Settings
from tracer_serve.storage.traces.schema import leases
from tracer_serve.storage.traces.sql import StorePart, insert_into, touched

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_US = 1_000_000


class Leases(StorePart):
    """The part of the store that decides who may do what only one may do at a time.

    Postgres: times are the server's clock, whatever the replicas' clocks say. SQLite: all processes are on one
    machine, and times are its clock since boot, which setting the time does not move; after a reboot every older
    lease has run out.
    """

    def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take a lease that is free, has run out, or is this holder's already; one atomic statement.

        Parameters
        ----------
        holder : unique to one attempt of one process, such as ``f"{host}:{pid}:{new_id()}"``
        ttl_s : seconds until it runs out unless renewed
        """
        with self._db.write() as connection:
            now, boot = _clock(connection)
            values: dict[str, Any] = {"holder": holder, "boot": boot, "expires": now + int(ttl_s * _US)}
            lease = insert_into(connection, leases).values(task=self._task, name=name, **values)
            taken = touched(
                connection,
                lease.on_conflict_do_update(
                    index_elements=[leases.c.task, leases.c.name],
                    set_=values,
                    where=or_(leases.c.holder == holder, leases.c.expires <= now, leases.c.boot != boot),
                ),
            )
            return taken == 1

    def renew_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Move the end of a lease that is still this holder's; False: it is lost, stop what it protects."""
        with self._db.write() as connection:
            now, boot = _clock(connection)
            values = {"boot": boot, "expires": now + int(ttl_s * _US)}
            return touched(connection, leases.update().where(*self._held(name, holder)).values(values)) == 1

    def release_lease(self, name: str, holder: str) -> bool:
        """Give a lease back; False: it was not this holder's any more."""
        with self._db.write() as connection:
            return touched(connection, leases.delete().where(*self._held(name, holder))) == 1

    def lease_holder(self, name: str) -> str | None:
        """Return who holds a lease that has not run out."""
        with self._db.read() as connection:
            now, boot = _clock(connection)
            query = select(leases.c.holder).where(leases.c.task == self._task, leases.c.name == name)
            holder: str | None = connection.execute(
                query.where(leases.c.expires > now, leases.c.boot == boot)
            ).scalar_one_or_none()
            return holder

    def _held(self, name: str, holder: str) -> tuple[ColumnElement[bool], ...]:
        return (leases.c.task == self._task, leases.c.name == name, leases.c.holder == holder)


def _clock(connection: Connection) -> tuple[ColumnElement[int], str]:
    """Return now in microseconds, of the database's own clock where it has one, and what that clock counts from."""
    if connection.dialect.name == "postgresql":
        return cast(func.extract("epoch", func.clock_timestamp()) * _US, BigInteger), ""
    if hasattr(time, "CLOCK_BOOTTIME") and _BOOT_ID.exists():
        return literal(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000, BigInteger), _BOOT_ID.read_text().strip()
    return literal(time.time_ns() // 1_000, BigInteger), "wall"


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
