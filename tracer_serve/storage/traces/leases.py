"""Leases: locks with an expiry time, shared by all processes and replicas of a task."""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, cast, func, literal, or_, select
from sqlalchemy.sql.elements import ColumnElement

from tracer_serve.storage.traces.schema import leases
from tracer_serve.storage.traces.sql import StorePart, insert_into, touched

_US = 1_000_000


class Leases(StorePart):
    """Locks that expire: at most one holder at a time.

    On Postgres, times come from the server's clock, so the replicas' clocks do not matter. On SQLite all processes are
    on one machine and times come from its clock since boot, which setting the wall clock does not move; after a reboot
    every older lease has expired.

    Attributes
    ----------
    boot_id : file with the id of this boot, which the clock's times belong to
    """

    boot_id = Path("/proc/sys/kernel/random/boot_id")

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take a lease that is free, has expired, or already belongs to this holder; one atomic statement.

        Parameters
        ----------
        holder : unique to one attempt of one process, such as ``f"{host}:{pid}:{new_id()}"``
        ttl_s : seconds until it expires unless renewed
        """
        with self._db.write() as connection:
            now, boot = self._clock(connection)
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

    def renew(self, name: str, holder: str, ttl_s: float) -> bool:
        """Extend a lease that still belongs to this holder; False: it is lost, so stop the work that it protects."""
        with self._db.write() as connection:
            now, boot = self._clock(connection)
            values = {"boot": boot, "expires": now + int(ttl_s * _US)}
            return touched(connection, leases.update().where(*self._held(name, holder)).values(values)) == 1

    def release(self, name: str, holder: str) -> bool:
        """Release a lease; False: it no longer belonged to this holder."""
        with self._db.write() as connection:
            return touched(connection, leases.delete().where(*self._held(name, holder))) == 1

    def holder(self, name: str) -> str | None:
        """Return the holder of a lease that has not expired; None if it is free."""
        with self._db.read() as connection:
            now, boot = self._clock(connection)
            query = select(leases.c.holder).where(leases.c.task == self._task, leases.c.name == name)
            holder: str | None = connection.execute(
                query.where(leases.c.expires > now, leases.c.boot == boot)
            ).scalar_one_or_none()
            return holder

    def _held(self, name: str, holder: str) -> tuple[ColumnElement[bool], ...]:
        return (leases.c.task == self._task, leases.c.name == name, leases.c.holder == holder)

    def _clock(self, connection: Connection) -> tuple[ColumnElement[int], str]:
        """Return the time in microseconds, by the database's clock if it has one, and the epoch of that clock."""
        if connection.dialect.name == "postgresql":
            return cast(func.extract("epoch", func.clock_timestamp()) * _US, BigInteger), ""
        if hasattr(time, "CLOCK_BOOTTIME") and self.boot_id.exists():
            return literal(
                time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000, BigInteger
            ), self.boot_id.read_text().strip()
        return literal(time.time_ns() // 1_000, BigInteger), "wall"
