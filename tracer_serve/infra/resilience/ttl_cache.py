"""Answers by exact key, bounded in number and age."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The most recently used answers.

    Parameters
    ----------
    size : most answers kept; the least recently used one goes first; 0 keeps none
    ttl_s : seconds after which an answer is forgotten, however often it is used
    clock : monotonic clock
    """

    def __init__(self, size: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.ttl_s, self.clock = size, ttl_s, clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return the answer, None where there is none or it is too old."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self.clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def drop(self, key: K) -> None:
        """Forget an answer, if it is there."""
        self._kept.pop(key, None)

    def put(self, key: K, value: V) -> None:
        """Keep an answer."""
        self._kept[key] = self.clock() + self.ttl_s, value
        self._kept.move_to_end(key)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
