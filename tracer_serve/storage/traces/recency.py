"""Select the newest labelled rows, for refits on stores that are too large to read whole."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from tracer_serve.storage.traces.codec import pack, unpack_text
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.tallies import label_counts, store_counts

_PAGE = 20_000
_LAST = 29  # from this character on an id is random: its counter is incremented by 32 random bits
_RANDOM = 1 << 32


@dataclass(frozen=True, slots=True)
class Newest:
    """A selection of the newest labelled rows.

    Parameters
    ----------
    after : served rows after this id are selected; empty: all of them
    of : number of labelled rows in the store
    imported : share of the imported rows that is selected, at random by their ids: a file may be in any order, so its
        last rows would be a biased sample
    older : ids of other rows that are selected as well
    """

    of: int
    after: str
    imported: float
    older: tuple[str, ...] = ()

    @property
    def chosen(self) -> ColumnElement[bool]:
        """The condition on a row, without `older`."""
        drawn = func.substr(traces.c.id, _LAST) < f"{int(self.imported * _RANDOM):08x}"
        served = and_(traces.c.decision.is_not(None), traces.c.id > self.after)
        return or_(served, and_(traces.c.decision.is_(None), drawn)) if self.imported else served


def newest(connection: Connection, task: str, n: int, each: int) -> Newest | None:
    """Select the newest n labelled rows, and of rare labels up to `each`; None if there are at most n rows."""
    counts = store_counts(connection, task)
    imported, total = counts.by_decision.get(None, 0), counts.total.labelled
    served = total - imported
    if total <= n:
        return None
    found = Newest(total, "", (n - served) / max(imported, 1))
    if served >= n:
        found = Newest(total, id_before_newest(connection, task, n, traces.c.decision.is_not(None)), 0.0)
    if not each:
        return found
    selected = connection.execute(_labelled(task, traces.c.teacher_label).where(found.chosen)).scalars()
    among = {unpack_text(label): rows for label, rows in Counter(selected).items()}
    wanted = {label: min(each, rows) for label, rows in label_counts(connection, task).items()}
    lacking = {label: w - among.get(label, 0) for label, w in wanted.items() if w > among.get(label, 0)}
    return replace(found, older=_newest_others(connection, _labelled(task), ~found.chosen, lacking))


def id_before_newest(connection: Connection, task: str, n: int, *where: ColumnElement[bool]) -> str:
    """Return the id before the newest n labelled rows; empty if there is none."""
    ids = _labelled(task).where(*where).order_by(traces.c.id.desc())
    return connection.execute(ids.offset(n).limit(1)).scalar_one_or_none() or ""


def _labelled(task: str, *columns: ColumnElement[Any]) -> Select[Any]:
    return select(*(columns or [traces.c.id])).where(traces.c.task == task, traces.c.teacher_label.is_not(None))


def _newest_others(
    connection: Connection, labelled: Select[Any], where: ColumnElement[bool], lacking: dict[str, int]
) -> tuple[str, ...]:
    """Return the ids of the newest rows of some labels, as many of each as are lacking."""
    others: list[str] = []
    query = labelled.add_columns(traces.c.teacher_label).where(where)
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
