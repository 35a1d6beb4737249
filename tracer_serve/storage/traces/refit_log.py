"""The history of refits."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from tracer_serve.infra.uuid7 import new_id
from tracer_serve.storage.traces.codec import pack, pack_some, unpack_some, unpack_text
from tracer_serve.storage.traces.rows import from_us, to_us
from tracer_serve.storage.traces.schema import refits
from tracer_serve.storage.traces.sql import StorePart, insert_into


@dataclass(frozen=True, slots=True)
class Refit:
    """One refit, running or ended.

    Parameters
    ----------
    reason : why it was started; once it has ended, the reason for its outcome
    outcome : None while it runs; else a word such as ``certified``, ``abstained``, ``failed``
    version : the version it wrote; None if it wrote none
    """

    reason: str
    id: str = field(default_factory=new_id)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    outcome: str | None = None
    version: int | None = None


class RefitLog(StorePart):
    """The log of a task's refits."""

    def record(self, refit: Refit) -> None:
        """Write a refit; one with the same id is replaced, so record it when it starts and again when it has ended."""
        values: dict[str, Any] = {
            "task": self._task,
            "id": refit.id,
            "started": to_us(refit.started),
            "ended": None if refit.ended is None else to_us(refit.ended),
            "outcome": pack_some(refit.outcome),
            "version": refit.version,
            "reason": pack(refit.reason),
        }
        with self._db.write() as connection:
            insert = insert_into(connection, refits).values(values)
            connection.execute(insert.on_conflict_do_update(index_elements=[refits.c.task, refits.c.id], set_=values))

    def recent(self, n: int = 50) -> list[Refit]:
        """Return the last n refits, newest first."""
        query = select(refits).where(refits.c.task == self._task).order_by(refits.c.id.desc()).limit(n)
        with self._db.read() as connection:
            return [
                Refit(
                    reason=unpack_text(row.reason),
                    id=row.id,
                    started=from_us(row.started),
                    ended=None if row.ended is None else from_us(row.ended),
                    outcome=unpack_some(row.outcome),
                    version=row.version,
                )
                for row in connection.execute(query)
            ]
