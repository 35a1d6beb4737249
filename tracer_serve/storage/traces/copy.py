"""A task's traces, values and history from one database to another, checked by counting."""

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
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did for one task.

    Parameters
    ----------
    rows : that the source had when it began
    new : of them, written now
    labelled : of those that were there before, got a label now
    there : rows of the target up to the last one copied; more than `rows` where it had others
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
        Where it cannot be opened, or is no file yet.
    """
    if isinstance(location, Path) and not location.is_file():
        raise StoreError(f"{location}: there is no such file")
    with closing(Database(location)) as database:
        migrate(database)
        return tasks_in(database)


def copy_task(source: Path | str, target: Path | str, task: str, progress: Progress) -> Copied:
    """Copy a task; repeated, it brings what is new since, and what an interrupted copy left out.

    Rows that come into the source while it runs are left to the next time. Nothing of the target is removed.

    Raises
    ------
    StoreError
        Where either cannot be opened, both are the same, or the counts disagree afterwards.
    """
    with closing(open_store(source, task)) as giver, closing(open_store(target, task)) as taker:
        if giver.name == taker.name:
            raise StoreError(f"{giver.name}: source and target are the same database")
        return _copy(giver, taker, progress)


def _copy(giver: TraceStore, taker: TraceStore, progress: Progress) -> Copied:
    pruned = giver.retention.pruned_until()
    if taker.retention.pruned_until() > pruned:
        raise StoreError(
            f"{taker.name}: rows of {giver.task} went here, by age, that {giver.name} still has, and would come back."
            f" Let them go there too (`tracer-serve traces prune`), or copy into an empty database"
        )
    until, total = giver.traces.latest_id(), giver.tallies.counts().total.rows - giver.tallies.pruned_rows()
    rows = new = told = 0
    for page in giver.transfer.pages(until):
        added, labelled = taker.transfer.absorb(page)
        rows, new, told = rows + len(page), new + added, told + labelled
        progress(f"copying {giver.task}", rows, max(rows, total))
    there = 0 if until is None else taker.traces.count(until)
    if there > rows:  # of an earlier copy, perhaps, and gone from the source since
        there -= sum(taker.retention.prune(pruned))
    taker.transfer.absorb_beside(giver.transfer.beside())
    if there < rows:
        lost = f"{rows:,} rows of {giver.task} were read and {there:,} are there"
        raise StoreError(f"{taker.name}: {lost}. If something removes rows there, stop it, and copy again")
    # a server may write between the two counts
    if all(
        taker.tallies.counts().total.rows - taker.tallies.pruned_rows() != taker.traces.count() for _ in range(_LOOKS)
    ):
        raise StoreError(f"{taker.name}: its tallies and its rows of {giver.task} differ. Was it written to by hand?")
    return Copied(giver.task, rows, new, told, there)
