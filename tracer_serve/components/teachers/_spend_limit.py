"""A teacher's daily budget: what its answers cost today, counted in the store that all processes share."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from tracer_serve.components.teachers._params import Budget
from tracer_serve.errors import BudgetError, StoreError
from tracer_serve.protocols import Teacher
from tracer_serve.storage.traces.key_values import KeyValues

SPENT = "teacher.spent"
"""Key in the store: a `SpentToday` as JSON."""

_PATIENCE_S = 5.0  # for calls under way to turn out cheaper than reserved
_PAUSE_S = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpentToday:
    """What a day's calls of the teacher cost.

    Parameters
    ----------
    day : date in UTC
    spent : cost of the answered calls, in the price's currency
    reserved : for calls under way, and for those of processes that were killed
    highest : cost of the most expensive call
    calls : answers that stated their tokens
    uncounted : calls that ended without a statement of their tokens, so `spent` misses them
    """

    day: str
    spent: float = 0.0
    reserved: float = 0.0
    highest: float = 0.0
    calls: int = 0
    uncounted: int = 0


_Change = Callable[[SpentToday], SpentToday]


@dataclass(frozen=True, slots=True)
class _Reserved:
    """An amount that is reserved for a call, on a day."""

    day: str
    amount: float


class PaidCall:
    """One call; `cost` is to be set once it is known."""

    cost: float | None = None


class SpendLimit:
    """Hold the calls of a teacher within its budget per day, in UTC.

    A call reserves the cost of the day's most expensive one before it is made; while none is known, a process makes one
    at a time. So the cap is exceeded by one call per process at most, where no call costs more than those before it.
    What happens while a transaction is written goes into the next one. If the store fails, a process goes by what it
    knew last and by its own calls, and writes those later.

    Parameters
    ----------
    budget : in the currency of the teacher's price
    currency : of the price, ISO 4217
    clock : returns the time in UTC
    """

    def __init__(
        self, budget: Budget, currency: str = "USD", clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.budget, self.currency = budget, currency
        self._clock = clock
        self._store: KeyValues | None = None
        self._stored = SpentToday(self._today())
        self._unsent: list[_Change] = []
        self._wanted: list[asyncio.Future[_Reserved | None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._first = asyncio.Lock()

    def share(self, values: KeyValues) -> None:
        """Count in a store, which has the calls of all processes; without one, nothing is limited."""
        self._store = values

    def read(self) -> SpentToday:
        """Return what was spent today by all processes; what this one knows if the store cannot be read."""
        try:
            stored = None if self._store is None else _parse(self._store.get(SPENT))
        except StoreError:
            stored = None
        return self._known if stored is None else self._of_today(stored)

    def describe(self) -> str:
        """Return the limit in a few words."""
        instead = "an error (429)" if self.budget.when_reached == "error" else "the surrogate's answer, uncertified"
        return f"at most {self.budget.per_day:g} {self.currency} a day, then {instead}"

    @property
    def renews_at(self) -> datetime:
        """The next midnight in UTC."""
        return self._clock().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)

    @asynccontextmanager
    async def call(self, paid: PaidCall) -> AsyncIterator[PaidCall]:
        """Make one call within the budget.

        Raises
        ------
        BudgetError
            If the budget is spent.
        """
        if self._store is None:
            yield paid
            return
        if self._known.spent >= self.budget.per_day:  # it only grows, so the store need not be asked
            raise self._reached()
        await self._first.acquire()
        alone = not self._known.calls
        if not alone:
            self._first.release()
        try:
            reserved = await self._reserve()
            try:
                yield paid
            finally:
                self._unsent.append(_settlement(reserved, paid.cost))
                self._write_soon()
        finally:
            if alone:
                self._first.release()

    def add(self, cost: float) -> None:
        """Count a call that was made without `call`: in a batch."""
        self._unsent.append(lambda record: replace(record, spent=record.spent + cost))
        self._write_soon()

    def require(self) -> None:
        """Read whether there is a budget left.

        Raises
        ------
        BudgetError
            If it is spent.
        """
        if self._store is not None and self.read().spent >= self.budget.per_day:
            raise self._reached()

    async def settle(self) -> None:
        """Write the costs of finished calls that are not written yet."""
        if self._unsent:
            await asyncio.shield(self._write_soon())

    async def _reserve(self) -> _Reserved:
        """Reserve the cost of a call."""
        until = self._clock() + timedelta(seconds=_PATIENCE_S)
        while True:
            answer: asyncio.Future[_Reserved | None] = asyncio.get_running_loop().create_future()
            self._wanted.append(answer)
            self._write_soon()
            try:
                reserved = await answer
            except asyncio.CancelledError:
                if answer.done() and not answer.cancelled():
                    self._give_back(answer.result())
                raise
            if reserved is not None:
                return reserved
            if self._known.spent >= self.budget.per_day or self._clock() >= until:
                raise self._reached()
            await asyncio.sleep(_PAUSE_S)

    def _write_soon(self) -> asyncio.Task[None]:
        """Start the writer, unless it runs: then it takes what is new as well."""
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return self._writer

    async def _write(self) -> None:
        failed = False
        while self._wanted or (self._unsent and not failed):
            wanted, self._wanted = self._wanted, []
            unsent = list(self._unsent)
            try:
                self._stored, given = await asyncio.to_thread(self._exchange, unsent, len(wanted))
                del self._unsent[: len(unsent)]
            except StoreError as error:
                failed = True
                _log.warning("what the teacher costs is counted in this process only: %s", error)
                _, given = self._changed(self._stored, unsent, len(wanted))
                self._unsent += map(_reservation, given)
            for answer, reserved in zip_longest(wanted, given):
                if answer.cancelled():
                    self._give_back(reserved)
                else:
                    answer.set_result(reserved)

    def _give_back(self, reserved: _Reserved | None) -> None:
        if reserved is not None:
            self._unsent.append(_settlement(reserved, None, made=False))

    def _exchange(self, unsent: Sequence[_Change], wanted: int) -> tuple[SpentToday, list[_Reserved]]:
        """Add changes to the record in the store, and make reservations; return both."""
        assert self._store is not None
        given: list[_Reserved] = []

        def change(stored: Any) -> Any:  # again if another process wrote first
            nonlocal given
            record, given = self._changed(_parse(stored), unsent, wanted)
            return asdict(record)

        return SpentToday(**self._store.update(SPENT, change)), given

    def _changed(
        self, old: SpentToday | None, unsent: Sequence[_Change], wanted: int
    ) -> tuple[SpentToday, list[_Reserved]]:
        record = self._of_today(old or SpentToday(self._today()))
        for change in unsent:
            record = change(record)
        given: list[_Reserved] = []
        while len(given) < wanted and record.spent + record.reserved < self.budget.per_day:
            given.append(_Reserved(record.day, record.highest))
            record = _reservation(given[-1])(record)
        return record, given

    @property
    def _known(self) -> SpentToday:
        """What this process knows of today."""
        return self._changed(self._stored, self._unsent, 0)[0]

    def _of_today(self, record: SpentToday) -> SpentToday:
        today = self._today()
        return record if record.day >= today else SpentToday(today)

    def _today(self) -> str:
        return self._clock().date().isoformat()

    def _reached(self) -> BudgetError:
        left = (self.renews_at - self._clock()).total_seconds()
        return BudgetError(
            f"the teacher's budget of {self.budget.per_day:g} for this day is spent (teacher.budget.per_day); it renews"
            " at midnight UTC",
            retry_after_s=math.ceil(left),
        )


def _reservation(reserved: _Reserved) -> _Change:
    def change(record: SpentToday) -> SpentToday:
        mine = record.day == reserved.day
        return replace(record, reserved=record.reserved + reserved.amount) if mine else record

    return change


def _settlement(reserved: _Reserved, cost: float | None, *, made: bool = True) -> _Change:
    """Return what replaces a reservation by a cost, or by nothing for a call that was not `made`."""

    def change(record: SpentToday) -> SpentToday:
        if record.day == reserved.day:
            record = replace(record, reserved=max(0.0, record.reserved - reserved.amount))
        if cost is None:
            return replace(record, uncounted=record.uncounted + made)
        return replace(record, spent=record.spent + cost, highest=max(record.highest, cost), calls=record.calls + 1)

    return change


def _parse(stored: Any) -> SpentToday | None:
    return None if stored is None else SpentToday(**stored)


def paid_call(limit: SpendLimit | None, paid: PaidCall | None = None) -> AbstractAsyncContextManager[PaidCall]:
    """Return the context of one call: within the limit, if there is one.

    Parameters
    ----------
    paid : the call, if somebody else sets its cost
    """
    paid = paid or PaidCall()
    return nullcontext(paid) if limit is None else limit.call(paid)


def spend_limit_of(teacher: Teacher) -> SpendLimit | None:
    """Return the limit of what a teacher costs; None if it has none."""
    found = getattr(teacher, "spend", None)
    return found if isinstance(found, SpendLimit) else None


def share_spend(teacher: Teacher, values: KeyValues) -> None:
    """Count what a teacher costs in a store, together with all other processes."""
    if (limit := spend_limit_of(teacher)) is not None:
        limit.share(values)


def spent_ratio(teacher: Teacher | None) -> float | None:
    """Return the share of a teacher's budget for this day that is spent; None without a budget."""
    limit = None if teacher is None else spend_limit_of(teacher)
    return None if limit is None else limit.read().spent / limit.budget.per_day
