"""The audit log: every administrative act, with who did it, when, to what, and the outcome."""

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import select

from tracer_serve.infra.uuid7 import new_id
from tracer_serve.storage.traces.codec import dump, pack, parse, unpack_text
from tracer_serve.storage.traces.rows import from_us, to_us
from tracer_serve.storage.traces.schema import audit_log
from tracer_serve.storage.traces.sql import StorePart

Outcome = Literal["done", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One administrative act.

    Parameters
    ----------
    actor : who did it, such as ``key:3f2a9c01`` or ``cli:ann@web-1``; never a secret
    action : what was done, such as ``refit``, ``rollback``, ``forget``, ``import`` or ``gate.close``
    target : to what, such as a version, a trace id, or a file's name
    details : further facts, as JSON; no texts of users
    """

    actor: str
    action: str
    target: str = ""
    outcome: Outcome = "done"
    details: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class AuditLog(StorePart):
    """The audit log of a task. Entries are only ever added."""

    def record(self, entry: AuditEntry) -> None:
        """Add an entry; on disk on return."""
        values = {
            "task": self._task,
            "id": entry.id,
            "at": to_us(entry.at),
            "actor": pack(entry.actor),
            "action": pack(entry.action),
            "target": pack(entry.target),
            "outcome": entry.outcome,
            "details": dump(dict(entry.details)),
        }
        with self._db.write() as connection:
            connection.execute(audit_log.insert().values(values))

    def recent(
        self, n: int = 50, *, before_id: str | None = None, actor: str | None = None, action: str | None = None
    ) -> list[AuditEntry]:
        """Return the newest n entries, newest first.

        Parameters
        ----------
        before_id : the last id of the previous page
        actor, action : return only entries with this value
        """
        query = select(audit_log).where(audit_log.c.task == self._task)
        if before_id is not None:
            query = query.where(audit_log.c.id < before_id)
        for column, wanted in ((audit_log.c.actor, actor), (audit_log.c.action, action)):
            query = query if wanted is None else query.where(column == pack(wanted))
        with self._db.read() as connection:
            return [
                AuditEntry(
                    actor=unpack_text(row.actor),
                    action=unpack_text(row.action),
                    target=unpack_text(row.target),
                    outcome=row.outcome,
                    details=parse(row.details),
                    id=row.id,
                    at=from_us(row.at),
                )
                for row in connection.execute(query.order_by(audit_log.c.id.desc()).limit(n))
            ]


def cli_actor() -> str:
    """Return the actor of a command line: the user and the machine.

    Examples
    --------
    >>> cli_actor().startswith("cli:")
    True
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"cli:{user}@{socket.gethostname()}"
