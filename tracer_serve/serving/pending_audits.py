"""Audits of this process that are not in the trace store yet."""

import threading
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class PendingAudits(Generic[K]):
    """Outcomes of audits by key, such as a version or a form, until they are stored. Thread-safe.

    Examples
    --------
    >>> pending = PendingAudits[str]()
    >>> pending.note("a", True)
    >>> with pending.taken() as outcomes:
    ...     outcomes
    {'a': [True]}
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._outcomes: defaultdict[K, list[bool]] = defaultdict(list)

    def note(self, key: K, agree: bool) -> None:
        """Add an outcome."""
        with self._guard:
            self._outcomes[key].append(agree)

    def of(self, key: K) -> list[bool]:
        """Return the outcomes of a key, in order."""
        with self._guard:
            return [*self._outcomes.get(key, ())]

    @contextmanager
    def taken(self) -> Iterator[dict[K, list[bool]]]:
        """Take all outcomes to store them; where that fails, they are put back before those that came meanwhile."""
        with self._guard:
            taken, self._outcomes = dict(self._outcomes), defaultdict(list)
        try:
            yield taken
        except BaseException:
            with self._guard:
                for key, outcomes in taken.items():
                    self._outcomes[key][:0] = outcomes
            raise
