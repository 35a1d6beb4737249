"""Reads and writes the traces of one task."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from sqlalchemy import case, func, select
from sqlalchemy.exc import IntegrityError

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import recency
from tracer_serve.storage.traces.codec import pack, unpack, unpack_text
from tracer_serve.storage.traces.columnar import Columns, gather
from tracer_serve.storage.traces.database import retry_once
from tracer_serve.storage.traces.merge_label import keeps_human_label, labelled
from tracer_serve.storage.traces.recency import Newest
from tracer_serve.storage.traces.rows import Row, from_row, to_row
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import StorePart, fetch, insert, missing
from tracer_serve.storage.traces.tallies import label_counts
from tracer_serve.storage.traces.tally_delta import TallyDelta
from tracer_serve.types import Answer, LabelSource, Text, Trace

_LOOKED_AT = 200_000


class TraceTable(StorePart):
    """The traces of one task. Every write is durable when its call returns.

    Attributes
    ----------
    column_rows : rows that one query of `columns` reads
    """

    column_rows = 20_000

    def add(self, traces: Iterable[Trace]) -> int:
        """Write traces in one transaction; they are on disk on return.

        A trace whose id exists already is left as it is, so a call may be repeated after an error. Requests do not call
        this one by one: `serving.trace_writer.TraceWriter` gathers their rows.

        Returns
        -------
        The number of new rows.
        """
        rows = [to_row(self._checked(trace)) for trace in traces]
        if not rows:
            return 0
        known = retry_once(partial(self._commit, rows))
        return sum(row.id not in known for row in rows)

    def set_label(
        self,
        trace_id: str,
        label: str,
        source: LabelSource,
        answer: Answer | None = None,
        *,
        fingerprint: str | None = None,
    ) -> bool:
        """Label an existing row, by an audit or by a person.

        A label that is replaced is kept in ``metadata["replaced"]``. Only a person's label replaces a person's; the
        teacher's is then kept there, and its cost and fingerprint on the row.

        Parameters
        ----------
        answer : the teacher's, for its tokens, cost and latency
        fingerprint : the teacher's, where the row has none yet

        Returns
        -------
        False if there is no such row, or its label is a person's and `source` is not.
        """
        merge = partial(labelled, label=label, source=source, answer=answer, fingerprint=fingerprint)
        return retry_once(partial(self._set_label, pack(trace_id), merge, source))

    def get(self, trace_id: str) -> Trace | None:
        """Return one trace; None if there is no such id."""
        with self._db.read() as connection:
            found = fetch(connection, select(traces).where(traces.c.task == self._task, traces.c.id == pack(trace_id)))
        return from_row(found[0]) if found else None

    def labelled(self, after_id: str | None = None, until_id: str | None = None) -> Iterator[Trace]:
        """Stream the labelled traces in the order of their ids, in pages: without a lock, in constant memory.

        Parameters
        ----------
        after_id, until_id : bounds, the first exclusive, the second inclusive; `latest_id` makes a snapshot
        """
        for page in self._pages(after_id, until_id, traces.c.teacher_label.is_not(None)):
            yield from map(from_row, page)

    def columns(
        self,
        after_id: str | None = None,
        until_id: str | None = None,
        *,
        labelled_only: bool = True,
        newest: Newest | None = None,
    ) -> Columns:
        """Return many traces as columns: what a refit needs of a million rows without a million objects.

        Parameters
        ----------
        after_id, until_id : bounds as in `labelled`
        labelled_only : skip handled rows that were never audited
        newest : return only these rows
        """
        with self._db.read() as connection:
            return gather(
                connection,
                self._task,
                after_id=after_id,
                until_id=until_id,
                labelled_only=labelled_only,
                newest=newest,
                page_rows=self.column_rows,
            )

    def newest(self, n: int, each: int = 0) -> Newest | None:
        """Return which labelled rows are the newest n or nearly so; None if there are no more than that.

        Served rows come before imported ones.

        Parameters
        ----------
        each : keep up to this many of the newest rows of each label that is rarer than that among the n
        """
        with self._db.read() as connection:
            return recency.newest(connection, self._task, n, each)

    def newest_after(self, n: int) -> str:
        """Return the greatest id below those of the newest n labelled rows; empty if there is none."""
        with self._db.read() as connection:
            return recency.id_before_newest(connection, self._task, n)

    def unlabelled(self, after_id: str = "") -> list[Text]:
        """Return the texts among the newest 200,000 rows that were drawn to be labelled and have no label.

        Parameters
        ----------
        after_id : exclusive bound of the ids
        """
        last = (
            select(traces.c.input, traces.c.teacher_label, traces.c.u, traces.c.audit_rate)
            .where(traces.c.task == self._task, traces.c.id > after_id)
            .order_by(traces.c.id.desc())
            .limit(_LOOKED_AT)
            .subquery()
        )
        query = select(last.c.input).where(last.c.teacher_label.is_(None), last.c.u < last.c.audit_rate)
        with self._db.read() as connection:
            return [unpack(text) for text in connection.execute(query).scalars()]

    def without_label(self, n: int) -> list[Text]:
        """Return the distinct texts of the newest n rows that no teacher has labelled, newest first."""
        query = select(traces.c.input).where(traces.c.task == self._task, traces.c.teacher_label.is_(None))
        with self._db.read() as connection:
            found = connection.execute(query.order_by(traces.c.id.desc()).limit(n)).scalars()
            return list(dict.fromkeys(unpack(text) for text in found))

    def to_audit(self, after_id: str, until_id: str, n: int) -> list[Trace]:
        """Return the first n directly asked, handled rows after an id that are audited at random and have no label.

        Parameters
        ----------
        until_id : last row that counts; empty: there is no limit
        """
        query = select(traces).where(
            traces.c.task == self._task,
            traces.c.id > pack(after_id),
            traces.c.teacher_label.is_(None),
            traces.c.audit_kind == "random",
            traces.c.form == pack("native"),
        )
        if until_id:
            query = query.where(traces.c.id <= pack(until_id))
        with self._db.read() as connection:
            return [from_row(row) for row in fetch(connection, query.order_by(traces.c.id).limit(n))]

    def recent(self, n: int = 50, *, before_id: str | None = None) -> list[Trace]:
        """Return the newest n traces, newest first; `before_id` is the last id of the previous page."""
        query = select(traces).where(traces.c.task == self._task)
        if before_id is not None:
            query = query.where(traces.c.id < before_id)
        with self._db.read() as connection:
            return [from_row(row) for row in fetch(connection, query.order_by(traces.c.id.desc()).limit(n))]

    def to_review(self, n: int, new_labels: Sequence[str], key_id: str | None, every_key: bool) -> list[Trace]:
        """Return the newest unreviewed rows that a person should judge: two labels that differ, or a new label.

        Looks at the newest 200,000 rows.

        Parameters
        ----------
        new_labels : teacher labels that the version does not know
        key_id : return only rows of this key, unless `every_key`
        """
        own = select(traces.c.id).where(traces.c.task == self._task).order_by(traces.c.id.desc())
        oldest = func.coalesce(own.limit(1).offset(_LOOKED_AT).scalar_subquery(), "")
        differs = traces.c.surrogate_label.is_not(None) & (traces.c.surrogate_label != traces.c.teacher_label)
        query = select(traces).where(
            traces.c.task == self._task,
            traces.c.id > oldest,
            traces.c.teacher_label.is_not(None),
            traces.c.label_source.is_(None) | (traces.c.label_source != "human"),
            differs | traces.c.teacher_label.in_([pack(label) for label in new_labels]),
        )
        if not every_key:
            query = query.where(traces.c.key_id.is_(None) if key_id is None else traces.c.key_id == pack(key_id))
        with self._db.read() as connection:
            return [from_row(row) for row in fetch(connection, query.order_by(traces.c.id.desc()).limit(n))]

    def labels_in_use(self, at_least: int, *, callers: int) -> list[str]:
        """Return the labels that the teacher or an import gave, most frequent first; scans the rows.

        Parameters
        ----------
        at_least : rows that a label needs
        callers : different callers that these rows need to come from, by key and user. Imported rows, and rows of
            callers who cannot be distinguished, count as one caller each
        """
        known = func.coalesce(traces.c.key_id, "") + "/" + func.coalesce(traces.c.user_id, "")
        unknown = traces.c.key_id.is_(None) & traces.c.user_id.is_(None)
        caller = case((unknown | (traces.c.label_source == "import"), traces.c.id), else_=known)
        query = (
            select(traces.c.teacher_label)
            .where(traces.c.task == self._task, traces.c.teacher_label.is_not(None))
            .where(traces.c.label_source.is_(None) | (traces.c.label_source != "human"))
            .group_by(traces.c.teacher_label)
            .having(func.count() >= at_least, func.count(caller.distinct()) >= callers)
            .order_by(func.count().desc(), traces.c.teacher_label)
        )
        with self._db.read() as connection:
            return [unpack_text(label) for label in connection.execute(query).scalars()]

    def latest_id(self) -> str | None:
        """Return the greatest id, None in an empty store; use it as `until_id` of a snapshot."""
        with self._db.read() as connection:
            query = select(traces.c.id).where(traces.c.task == self._task).order_by(traces.c.id.desc()).limit(1)
            found: str | None = connection.execute(query).scalar_one_or_none()
            return found

    def labelled_since(self, trace_id: str | None) -> int:
        """Return how many labelled traces have a greater id; all of them for None."""
        with self._db.read() as connection:
            if trace_id is None:
                return sum(label_counts(connection, self._task).values())
            later = select(func.count()).where(traces.c.task == self._task, traces.c.id > trace_id)
            return int(connection.execute(later.where(traces.c.teacher_label.is_not(None))).scalar_one())

    def count(self, until_id: str | None = None) -> int:
        """Return how many rows there are up to an id; scans them, unlike `Tallies.counts`."""
        query = select(func.count()).select_from(traces).where(traces.c.task == self._task)
        if until_id is not None:
            query = query.where(traces.c.id <= until_id)
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _checked(self, trace: Trace) -> Trace:
        if trace.task != self._task:
            raise ValueError(f"trace {trace.id} is of task {trace.task!r}, this store holds {self._task!r}")
        return trace

    def _commit(self, rows: Sequence[Row]) -> set[str]:
        """Write rows in one transaction and return the ids that existed already."""
        try:
            with self._db.write() as connection:
                insert(connection, rows)
                TallyDelta().add(rows).write(connection)
                return set()
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
        with self._db.write() as connection:
            new = missing(connection, self._task, rows)
            if new:
                insert(connection, new)
                TallyDelta().add(new).write(connection)
        return {row.id for row in rows} - {row.id for row in new}

    def _set_label(self, packed_id: str, merge: Callable[[Row], Row], source: LabelSource) -> bool:
        with self._db.write() as connection:
            where = (traces.c.task == self._task, traces.c.id == packed_id)
            found = fetch(connection, select(traces).where(*where).with_for_update())
            if not found:
                return False
            before, after = found[0], merge(found[0])
            if after != before:
                connection.execute(traces.update().where(*where).values(after._asdict()))
                TallyDelta().add([before], -1).add([after]).write(connection)
            return not keeps_human_label(before, source)
