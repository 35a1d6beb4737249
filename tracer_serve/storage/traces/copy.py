"""Copy a task's traces, values and history from one database to another, and compare the counts."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.export import tasks_in
from tracer_serve.storage.traces.migrations import migrate
from tracer_serve.storage.traces.store import TraceStore, open_store

Progress = Callable[[str, int, int], None]
_COUNT_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Copied:
    """Row counts of one task's copy.

    Parameters
    ----------
    rows : rows of the source when the copy started
    new : rows inserted into the target
    labelled : rows that the target had, and that received a label
    there : rows of the target up to the last one copied; more than `rows` if it had others
    """

    task: str
    rows: int
    new: int
    labelled: int
    there: int


def tasks_of(location: Path | str) -> list[str]:
    """Return the tasks of a database.

    Raises
    ------
    StoreError
        If it cannot be opened, or does not exist.
    """
    if isinstance(location, Path) and not location.is_file():
        raise StoreError(f"{location}: there is no such file")
    with closing(Database(location)) as database:
        migrate(database)
        return tasks_in(database)


def copy_task(source: Path | str, target: Path | str, task: str, progress: Progress) -> Copied:
    """Copy a task. Repeat it to copy rows that are new since, or to complete an interrupted copy.

    Rows that are added to the source meanwhile are not copied. No rows of the target are deleted.

    Raises
    ------
    StoreError
        If either cannot be opened, both are the same, or the counts disagree afterwards.
    """
    with closing(open_store(source, task)) as read, closing(open_store(target, task)) as written:
        if read.name == written.name:
            raise StoreError(f"{read.name}: source and target are the same database")
        return _copy(read, written, progress)


def _copy(source: TraceStore, target: TraceStore, progress: Progress) -> Copied:
    pruned = source.retention.pruned_until()
    if target.retention.pruned_until() > pruned:
        raise StoreError(
            f"{target.name}: old rows of {source.task} were deleted here that {source.name} still has; a copy would"
            f" restore them. Delete them there too (`tracer-serve traces prune`), or copy into an empty database"
        )
    until, total = source.traces.latest_id(), source.tallies.counts().total.rows - source.tallies.pruned_rows()
    rows = new = labelled = 0
    for page in source.transfer.pages(until):
        inserted, updated = target.transfer.merge(page)
        rows, new, labelled = rows + len(page), new + inserted, labelled + updated
        progress(f"copying {source.task}", rows, max(rows, total))
    there = 0 if until is None else target.traces.count(until)
    if there > rows:  # perhaps of an earlier copy, and deleted from the source since
        there -= sum(target.retention.prune(pruned))
    target.transfer.write_other_tables(source.transfer.other_tables())
    if there < rows:
        lost = f"{rows:,} rows of {source.task} were read, but {there:,} are in the target"
        raise StoreError(f"{target.name}: {lost}. Stop whatever deletes rows there, and copy again")
    # a server may write between the two counts
    if all(
        target.tallies.counts().total.rows - target.tallies.pruned_rows() != target.traces.count()
        for _ in range(_COUNT_ATTEMPTS)
    ):
        raise StoreError(f"{target.name}: its tallies and its rows of {source.task} differ. Were rows changed by hand?")
    return Copied(source.task, rows, new, labelled, there)
