"""What the parts of a store share."""

from tracer_serve.traces.database import Database


class Part:
    """One concern of the store of one task."""

    def __init__(self, database: Database, task: str) -> None:
        self._db, self._task = database, task

    @property
    def task(self) -> str:
        """Name of the task whose rows this store reads and writes."""
        return self._task

    @property
    def name(self) -> str:
        """Where the store is, without a password."""
        return self._db.name
