"""Least-recently-used cache with a time to live."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keep the most recently used values.

    Parameters
    ----------
    size : maximum number of values; the least recently used is dropped first; 0 keeps none
    ttl_s : seconds after which a value expires, even if it is used
    clock : monotonic clock
    """

    def __init__(self, size: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.ttl_s, self.clock = size, ttl_s, clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return the value, or None if it is missing or expired."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self.clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def drop(self, key: K) -> None:
        """Drop a value, if present."""
        self._kept.pop(key, None)

    def put(self, key: K, value: V) -> None:
        """Store a value."""
        self._kept[key] = self.clock() + self.ttl_s, value
        self._kept.move_to_end(key)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
