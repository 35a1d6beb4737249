"""Journal of submitted batches in the trace store, so that an interrupted job asks nothing twice."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tracer_serve.storage.traces.key_values import KeyValues

_KEY = "teacher_batches"
_KEPT = timedelta(days=28)  # both providers keep results a day longer


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """One batch of a job.

    Parameters
    ----------
    mark : unique, made before the batch is submitted
    batch : the provider's id; None while it is not known whether the batch was received
    ids : of its requests
    """

    job: str
    mark: str
    batch: str | None
    created: str
    ids: tuple[str, ...]

    @property
    def since(self) -> datetime:
        """When it was submitted, UTC."""
        return datetime.fromisoformat(self.created)


class BatchJournal:
    """The batches of one job, such as the classification of one file, until the job is finished.

    A batch is written down before it is submitted. What became of it is then asked, not guessed, after a crash.
    """

    def __init__(self, values: KeyValues, job: str) -> None:
        self._values, self._job = values, job

    def begin(self, ids: Collection[str]) -> SubmittedBatch:
        """Write down a batch that is about to be submitted."""
        entry = SubmittedBatch(self._job, uuid4().hex, None, datetime.now(UTC).isoformat(), tuple(ids))
        self._change(lambda entries: [*entries, entry])
        return entry

    def received(self, entry: SubmittedBatch, batch: str) -> SubmittedBatch:
        """Write down a batch's id."""
        known = replace(entry, batch=batch)
        self._change(lambda entries: [known if one.mark == entry.mark else one for one in entries])
        return known

    def drop(self, entry: SubmittedBatch) -> None:
        """Forget a batch of which nothing will come."""
        self._change(lambda entries: [one for one in entries if one.mark != entry.mark])

    def entries(self) -> list[SubmittedBatch]:
        """Return the job's batches, oldest first."""
        return [one for one in _read(self._values.get(_KEY)) if one.job == self._job]

    def finish(self) -> None:
        """Forget the job: its answers are stored where they belong."""
        if self.entries():
            self._change(lambda entries: [one for one in entries if one.job != self._job])

    def _change(self, change: Callable[[list[SubmittedBatch]], list[SubmittedBatch]]) -> None:
        self._values.update(_KEY, lambda value: [asdict(one) for one in change(_read(value))] or None)


def _read(value: list[dict[str, Any]] | None) -> list[SubmittedBatch]:
    """Return the entries whose results still exist."""
    oldest = datetime.now(UTC) - _KEPT
    found = [SubmittedBatch(**{**one, "ids": tuple(one["ids"])}) for one in value or ()]
    return [one for one in found if one.since > oldest]
