"""Certified answers that the mode held back: how many there were, whether the teacher agreed, and what it cost."""

import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

from tracer_serve.storage.traces import TraceStore

HELD_BACK = "held_back"
"""Key in the store: by day (UTC), texts, agreements and cost."""
BY_MODE = frozenset({"observe", "canary"})
"""Reasons for which the mode holds a certified answer back."""
_DAYS = 31


@dataclass(frozen=True, slots=True)
class HeldBackCounts:
    """Certified answers of one day that were held back.

    Parameters
    ----------
    agreed : texts on which the teacher said the same
    cost : what the teacher's answers cost, in the price's currency: what would have been saved, audits aside
    """

    texts: int = 0
    agreed: int = 0
    cost: float = 0.0

    def __add__(self, other: "HeldBackCounts") -> "HeldBackCounts":
        return HeldBackCounts(self.texts + other.texts, self.agreed + other.agreed, self.cost + other.cost)


class HeldBack:
    """Counts what is held back in this process, and adds it to the store. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._pending: dict[str, HeldBackCounts] = {}

    def note(self, agree: bool, cost: float) -> None:
        """Count a text that the teacher answered in the surrogate's place."""
        day = datetime.now(UTC).date().isoformat()
        with self._guard:
            self._pending[day] = self._pending.get(day, HeldBackCounts()) + HeldBackCounts(1, int(agree), cost)

    def exchange(self, store: TraceStore) -> None:
        """Add what was counted to the store.

        Raises
        ------
        StoreError
            If the store cannot be reached; the counts are kept.
        """
        with self._guard:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            store.values.update(HELD_BACK, _adding(pending))
        except Exception:
            with self._guard:
                self._pending = _sum(pending, self._pending)
            raise


def held_back_on(store: TraceStore, day: datetime) -> HeldBackCounts:
    """Return the counts of a day (UTC)."""
    return HeldBackCounts(*(store.values.get(HELD_BACK) or {}).get(day.date().isoformat(), ()))


def _adding(pending: dict[str, HeldBackCounts]) -> Callable[[dict[str, Any] | None], dict[str, Any]]:
    def add(stored: dict[str, Any] | None) -> dict[str, Any]:
        known = {day: HeldBackCounts(*values) for day, values in (stored or {}).items()}
        whole = _sum(known, pending)
        return {day: list(astuple(whole[day])) for day in sorted(whole)[-_DAYS:]}

    return add


def _sum(one: dict[str, HeldBackCounts], other: dict[str, HeldBackCounts]) -> dict[str, HeldBackCounts]:
    none = HeldBackCounts()
    return {day: one.get(day, none) + other.get(day, none) for day in {**one, **other}}
