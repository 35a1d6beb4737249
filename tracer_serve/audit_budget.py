"""The most audits a day, held over all processes: each draws on a share that it has taken out of the store.

A rate alone keeps no budget: it goes by the traffic of the last day, and there is none when a task starts, or less
of it than what comes in the next ten seconds.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tracer_serve.traces import TraceStore

BUDGET = "audit_budget"
"""The value in the store: a day (UTC), and how many of its audits processes have taken."""


def until_midnight(now: datetime) -> timedelta:
    """Return what is left of a day."""
    return datetime(now.year, now.month, now.day, tzinfo=now.tzinfo) + timedelta(days=1) - now


@dataclass(slots=True)
class Purse:
    """The audits that one process may still ask for.

    At each look it is filled up to an hour's share of what is left of the day's budget, so that a burst of traffic
    leaves something for later. What a process that is killed had taken is lost, an hour's share at most.

    Parameters
    ----------
    budget : most audits a day; None: as many as there are
    """

    budget: int | None
    _day: str = ""
    _taken: int = 0
    _asked: int = 0  # counted by the event loop alone, as the rest is by the thread that looks

    @property
    def empty(self) -> bool:
        """Whether no further audit may be asked for until the next look."""
        return self.budget is not None and self._asked >= self._taken

    def pay(self) -> None:
        """Count an audit that is asked for."""
        self._asked += 1

    def fill(self, store: TraceStore, answered: int, now: datetime) -> None:
        """Take from the store what is missing.

        Parameters
        ----------
        answered : the day's audits with an answer, of all processes
        now : UTC
        """
        if self.budget is None:
            return
        budget, day = self.budget, now.date().isoformat()
        if day != self._day:
            self._day, self._taken = day, self._asked
        held, took = max(self._taken - self._asked, 0), 0
        hours = max(until_midnight(now) / timedelta(hours=1), 1.0)

        def take(stored: dict[str, Any] | None) -> dict[str, Any] | None:
            nonlocal took
            used = stored["taken"] if stored is not None and stored["day"] == day else 0
            left = max(budget - max(used, answered), 0)
            took = min(left, max(math.ceil((left + held) / hours) - held, 0))
            return {"day": day, "taken": max(used, answered) + took} if took else stored

        store.update_value(BUDGET, take)
        self._taken += took
