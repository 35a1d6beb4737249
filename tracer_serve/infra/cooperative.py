"""Iterate over long lists without blocking the event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

_ROWS = 64  # some tens of microseconds each


async def in_turns(rows: Iterable[T]) -> AsyncIterator[T]:
    """Yield rows, and give other tasks of the event loop a turn after every 64.

    Ten thousand rows at once would make every other request wait.
    """
    for done, row in enumerate(rows, start=1):
        yield row
        if not done % _ROWS:
            await asyncio.sleep(0)
