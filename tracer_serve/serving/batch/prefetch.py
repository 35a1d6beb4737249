"""Produce the next items of an iterable in a thread while the last one is used."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Marks the end."""


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items in order, up to `depth` of them produced in advance by a thread.

    An exception while producing an item is raised in its place.

    Examples
    --------
    >>> list(prefetch(n * n for n in range(4)))
    [0, 1, 4, 9]
    """
    iterator, pool = iter(items), ThreadPoolExecutor(1, "tracer-prefetch")
    pending: deque[Future[T | type[_End]]] = deque()
    try:
        pending.extend(pool.submit(next, iterator, _End) for _ in range(depth))
        while not isinstance(item := pending.popleft().result(), type):
            pending.append(pool.submit(next, iterator, _End))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
