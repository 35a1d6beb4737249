"""Small JSON values that all processes of a task share: the monitor's state, a closed gate, what was spent."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, select

from tracer_serve.storage.traces.codec import dump, parse
from tracer_serve.storage.traces.schema import settings
from tracer_serve.storage.traces.sql import StorePart, insert_into, touched


class Settings(StorePart):
    """The part of the store that keeps values by key. None means: not there."""

    def get_value(self, key: str) -> Any:
        """Return the value of a key, None where there is none."""
        with self._db.read() as connection:
            return self._value(connection, key)

    def put_value(self, key: str, value: Any) -> None:
        """Write a value whatever was there; None removes the key."""
        with self._db.write() as connection:
            self._set(connection, key, value)

    def compare_and_set(self, key: str, expected: Any, value: Any) -> bool:
        """Write a value only if the present one equals `expected`; atomic over processes.

        Parameters
        ----------
        expected : compared as JSON; None: the key must not be there yet
        value : None removes the key
        """
        with self._db.write() as connection:
            if expected is None:
                return value is None or self._write(connection, key, value, replace=False)
            matches = (settings.c.task == self._task, settings.c.key == key, settings.c.value == dump(expected))
            statement = settings.delete() if value is None else settings.update().values(value=dump(value))
            return touched(connection, statement.where(*matches)) == 1

    def update_value(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace a value by a function of it, trying again when another process was faster; return the new value.

        Examples
        --------
        ``store.update_value("audits", lambda n: (n or 0) + 1)``
        """
        while True:
            present = self.get_value(key)
            changed = change(present)
            if self.compare_and_set(key, present, changed):
                return changed

    def _value(self, connection: Connection, key: str) -> Any:
        query = select(settings.c.value).where(settings.c.task == self._task, settings.c.key == key)
        stored = connection.execute(query).scalar_one_or_none()
        return None if stored is None else parse(stored)

    def _set(self, connection: Connection, key: str, value: Any) -> None:
        if value is None:
            connection.execute(settings.delete().where(settings.c.task == self._task, settings.c.key == key))
        else:
            self._write(connection, key, value, replace=True)

    def _write(self, connection: Connection, key: str, value: Any, *, replace: bool) -> bool:
        insert = insert_into(connection, settings).values(task=self._task, key=key, value=dump(value))
        unique = [settings.c.task, settings.c.key]
        statement = (
            insert.on_conflict_do_update(index_elements=unique, set_={"value": insert.excluded.value})
            if replace
            else insert.on_conflict_do_nothing(index_elements=unique)
        )
        return touched(connection, statement) == 1
