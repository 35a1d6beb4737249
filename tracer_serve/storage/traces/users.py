"""Find and erase what a user sent."""

from sqlalchemy import bindparam, select

from tracer_serve.storage.traces.codec import pack
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import StorePart, fetch
from tracer_serve.storage.traces.tally_delta import TallyDelta


class Users(StorePart):
    """Traces by the user who sent them, which is ``metadata["user"]``."""

    def trace_ids(self, user: str) -> list[str]:
        """Return the ids that `forget` would remove."""
        query = select(traces.c.id).where(traces.c.task == self._task, traces.c.user_id == pack(user))
        with self._db.read() as connection:
            return list(connection.execute(query.order_by(traces.c.id)).scalars())

    def forget(self, user: str) -> list[str]:
        """Remove every trace of a user, from the disk too, and return the ids removed."""
        where = (traces.c.task == self._task, traces.c.user_id == pack(user))
        with self._db.write() as connection:
            gone = fetch(connection, select(traces).where(*where).order_by(traces.c.id).with_for_update())
            if gone:
                delete = traces.delete().where(traces.c.task == self._task, traces.c.id == bindparam("gone"))
                connection.execute(delete, [{"gone": row.id} for row in gone])
                TallyDelta().add(gone, -1).write(connection)
        if gone:
            self._db.shrink_log()
        return [row.id for row in gone]
