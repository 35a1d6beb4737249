"""Write a group of rows and labels to the store, and return those that it rejects."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import TraceStore, refuses_values
from tracer_serve.types import Answer, LabelSource, Trace, length_of


@dataclass(frozen=True, slots=True)
class Label:
    """A teacher's label for a row that was written before."""

    trace_id: str
    source: LabelSource
    answer: Answer
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A row to add, or a label to set on one.

    Parameters
    ----------
    done : called with whether it is on disk; False may be followed by True
    caller : of the request
    """

    what: Trace | Label
    done: Callable[[bool], None] | None = None
    caller: str = ""

    @property
    def size(self) -> int:
        """Its share of a queue's capacity: 1, and 1 more for each thousand characters."""
        return 1 + length_of(self.what.input) // 1_000 if isinstance(self.what, Trace) else 1

    def notify(self, *, written: bool) -> None:
        """Notify the request that waits for it."""
        if self.done is not None:
            self.done(written)


@dataclass(slots=True)
class WriteOutcome:
    """Result of writing a group.

    Parameters
    ----------
    left : not written because the store accepts nothing now; in their order
    problem : why not
    refused : items that the store rejects although it accepts others, each with its error
    """

    left: list[PendingWrite] = field(default_factory=list)
    problem: str | None = None
    refused: list[tuple[PendingWrite, Exception]] = field(default_factory=list)


def write(store: TraceStore, items: Sequence[PendingWrite]) -> WriteOutcome:
    """Add the rows of a group in one transaction, then its labels, and notify the requests that wait for a row."""
    left = deque(items)
    try:
        if rows := [item.what for item in items if isinstance(item.what, Trace)]:
            store.traces.add(rows)
        for item in items:
            if isinstance(item.what, Trace):
                item.notify(written=True)
        left = deque(item for item in items if isinstance(item.what, Label))
        while left:
            if isinstance(label := left[0].what, Label):
                answer = label.answer
                store.traces.set_label(
                    label.trace_id, answer.label, label.source, answer, fingerprint=label.fingerprint
                )
            left.popleft()
    except Exception as error:  # noqa: BLE001  a driver may raise anything; it is reported, and later rows are written
        if isinstance(error, StoreError) and not refuses_values(error):
            return WriteOutcome([*left], str(error))
        if len(left) == 1:
            return WriteOutcome(refused=[(left[0], error)])
    return _one_by_one(store, left)


def _one_by_one(store: TraceStore, left: deque[PendingWrite]) -> WriteOutcome:
    """Write the rest of a group item by item, since one of them is rejected."""
    whole = WriteOutcome()
    while left and whole.problem is None:
        one = write(store, [left.popleft()])
        whole = WriteOutcome(one.left, one.problem, whole.refused + one.refused)
    whole.left += left
    return whole
