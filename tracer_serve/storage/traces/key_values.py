"""A key-value table of small JSON values that all processes of a task share."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, select

from tracer_serve.storage.traces.codec import dump, parse
from tracer_serve.storage.traces.schema import leases, settings
from tracer_serve.storage.traces.sql import StorePart, insert_into, touched


class KeyValues(StorePart):
    """JSON values by key, such as the monitor's state or a closed gate. None means that a key is absent."""

    def get(self, key: str) -> Any:
        """Return the value of a key; None if there is none."""
        with self._db.read() as connection:
            return read_value(connection, self._task, key)

    def put(self, key: str, value: Any) -> None:
        """Write a value; None removes the key."""
        with self._db.write() as connection:
            write_value(connection, self._task, key, value)

    def compare_and_set(self, key: str, expected: Any, value: Any) -> bool:
        """Write a value only if the present one equals `expected`; atomic over processes.

        Parameters
        ----------
        expected : compared as JSON; None: the key must be absent
        value : None removes the key
        """
        with self._db.write() as connection:
            if expected is None:
                return value is None or _upsert(connection, self._task, key, value, replace=False)
            matches = (settings.c.task == self._task, settings.c.key == key, settings.c.value == dump(expected))
            statement = settings.delete() if value is None else settings.update().values(value=dump(value))
            return touched(connection, statement.where(*matches)) == 1

    def update(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace a value by a function of it and return the new value; retries when another process wrote first.

        Examples
        --------
        ``store.values.update("audits", lambda n: (n or 0) + 1)``
        """
        while True:
            present = self.get(key)
            changed = change(present)
            if self.compare_and_set(key, present, changed):
                return changed

    def put_under_lease(self, lease: str, holder: str, key: str, value: Any) -> bool:
        """Write a value only while a lease belongs to this holder (a fencing check); one transaction.

        A process that was paused for longer than its lease, and resumes after another one took it, is refused.

        Parameters
        ----------
        value : None removes the key
        """
        held = (leases.c.task == self._task, leases.c.name == lease, leases.c.holder == holder)
        with self._db.write() as connection:
            if connection.execute(select(leases.c.holder).where(*held).with_for_update()).first() is None:
                return False
            write_value(connection, self._task, key, value)
            return True


def read_value(connection: Connection, task: str, key: str) -> Any:
    """Return the value of a key; None if there is none."""
    query = select(settings.c.value).where(settings.c.task == task, settings.c.key == key)
    stored = connection.execute(query).scalar_one_or_none()
    return None if stored is None else parse(stored)


def write_value(connection: Connection, task: str, key: str, value: Any) -> None:
    """Write a value in the caller's transaction; None removes the key."""
    if value is None:
        connection.execute(settings.delete().where(settings.c.task == task, settings.c.key == key))
    else:
        _upsert(connection, task, key, value, replace=True)


def _upsert(connection: Connection, task: str, key: str, value: Any, *, replace: bool) -> bool:
    insert = insert_into(connection, settings).values(task=task, key=key, value=dump(value))
    unique = [settings.c.task, settings.c.key]
    statement = (
        insert.on_conflict_do_update(index_elements=unique, set_={"value": insert.excluded.value})
        if replace
        else insert.on_conflict_do_nothing(index_elements=unique)
    )
    return touched(connection, statement) == 1
