"""The newest labelled rows: what a refit reads of a store that has grown beyond what one can work on."""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from tracer_serve.traces.activity import Activity
from tracer_serve.traces.codec import pack, unpack_text
from tracer_serve.traces.tables import traces
from tracer_serve.traces.tally import label_counts

_PAGE = 20_000
_LAST = 29  # from this character on an id is random: its counter goes up by 32 random bits
_RANDOM = 1 << 32


@dataclass(frozen=True, slots=True)
class Newest:
    """Which labelled rows are the newest.

    Parameters
    ----------
    after : the rows that were served after this id; empty: all of them
    imported : the share of the imported rows that are among them, chosen by their ids' random part: a file may be in
        any order, so that its last rows are a sample of nothing
    older : ids of others that are kept besides
    """

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
        labelled = (traces.c.task == self._task, traces.c.teacher_label.is_not(None))
        ids = select(traces.c.id).where(*labelled).order_by(traces.c.id.desc()).offset(n).limit(1)
        with self._db.read() as connection:
            return connection.execute(ids).scalar_one_or_none() or ""

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
        if served + imported <= n:
            return None
        labelled = (traces.c.task == self._task, traces.c.teacher_label.is_not(None))
        with self._db.read() as connection:
            found = Newest("", (n - served) / max(imported, 1))
            if served >= n:
                ids = select(traces.c.id).where(*labelled, traces.c.decision.is_not(None)).order_by(traces.c.id.desc())
                found = Newest(connection.execute(ids.offset(n).limit(1)).scalar_one_or_none() or "", 0.0)
            inside = connection.execute(select(traces.c.teacher_label).where(*labelled, found.chosen)).scalars()
            among = {unpack_text(label): rows for label, rows in Counter(inside).items()}
            wanted = {label: min(each, rows) for label, rows in label_counts(connection, self._task).items()}
            lacking = {label: n - among.get(label, 0) for label, n in wanted.items() if n > among.get(label, 0)}
            return Newest(found.after, found.imported, self._others(connection, ~found.chosen, lacking))

    def _others(self, connection: Connection, where: ColumnElement[bool], lacking: dict[str, int]) -> tuple[str, ...]:
        """Return the newest rows of some labels, of each as many as it lacks."""
        others: list[str] = []
        query = select(traces.c.id, traces.c.teacher_label).where(traces.c.task == self._task, where)
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
