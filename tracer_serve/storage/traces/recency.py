"""The newest labelled rows: what a refit reads of a store that has grown beyond what one can work on."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from tracer_serve.storage.traces.codec import pack, unpack_text
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.tallies import Activity, label_counts

_PAGE = 20_000
_LAST = 29  # from this character on an id is random: its counter goes up by 32 random bits
_RANDOM = 1 << 32


@dataclass(frozen=True, slots=True)
class Newest:
    """Which labelled rows are the newest.

    Parameters
    ----------
    after : the rows that were served after this id; empty: all of them
    of : how many labelled rows there are
    imported : the share of the imported rows that are among them, chosen by their ids' random part: a file may be in
        any order, so that its last rows are a sample of nothing
    older : ids of others that are kept besides
    """

    of: int
    after: str
    imported: float
    older: tuple[str, ...] = ()

    @property
    def chosen(self) -> ColumnElement[bool]:
        """The condition on a row; `older` apart."""
        drawn = func.substr(traces.c.id, _LAST) < f"{int(self.imported * _RANDOM):08x}"
        served = and_(traces.c.decision.is_not(None), traces.c.id > self.after)
        return or_(served, and_(traces.c.decision.is_(None), drawn)) if self.imported else served


class Recency(Activity):
    """The part of the store that tells new rows from old ones."""

    def newest_after(self, n: int) -> str:
        """Return the id that the newest n labelled rows have greater ones than; empty where there are no more."""
        with self._db.read() as connection:
            return self._behind(connection, n)

    def newest(self, n: int, each: int = 0) -> Newest | None:
        """Return which labelled rows are the newest n or nearly so; None where there are no more than that.

        Rows that were served come before imported ones.

        Parameters
        ----------
        each : of a label with fewer rows among them its newest others are kept besides, up to this number: else what
            has become rare would be forgotten
        """
        counts = self.counts()
        imported = counts.by_decision.get(None, 0)
        served = counts.total.labelled - imported
        total = counts.total.labelled
        if total <= n:
            return None
        with self._db.read() as connection:
            found = Newest(total, "", (n - served) / max(imported, 1))
            if served >= n:
                found = Newest(total, self._behind(connection, n, traces.c.decision.is_not(None)), 0.0)
            if not each:
                return found
            inside = connection.execute(self._labelled(traces.c.teacher_label).where(found.chosen)).scalars()
            among = {unpack_text(label): rows for label, rows in Counter(inside).items()}
            wanted = {label: min(each, rows) for label, rows in label_counts(connection, self._task).items()}
            lacking = {label: w - among.get(label, 0) for label, w in wanted.items() if w > among.get(label, 0)}
            return replace(found, older=self._others(connection, ~found.chosen, lacking))

    def _labelled(self, *columns: ColumnElement[Any]) -> Select[Any]:
        return select(*columns).where(traces.c.task == self._task, traces.c.teacher_label.is_not(None))

    def _behind(self, connection: Connection, n: int, *where: ColumnElement[bool]) -> str:
        """Return the id of the newest labelled row behind n others, empty where there is none."""
        ids = self._labelled(traces.c.id).where(*where).order_by(traces.c.id.desc())
        return connection.execute(ids.offset(n).limit(1)).scalar_one_or_none() or ""

    def _others(self, connection: Connection, where: ColumnElement[bool], lacking: dict[str, int]) -> tuple[str, ...]:
        """Return the newest rows of some labels, of each as many as it lacks."""
        others: list[str] = []
        query = self._labelled(traces.c.id, traces.c.teacher_label).where(where)
        query, before = query.order_by(traces.c.id.desc()).limit(_PAGE), None
        while lacking:
            page = query.where(traces.c.teacher_label.in_([pack(label) for label in lacking]))
            rows = connection.execute(page if before is None else page.where(traces.c.id < before)).all()
            for before, packed in rows:
                label = unpack_text(packed)
                if lacking.get(label):
                    others.append(before)
                    lacking[label] -= 1
            if len(rows) < _PAGE:
                break
            lacking = {label: n for label, n in lacking.items() if n}
        return tuple(others)
