"""Long lists in the event loop: now and then it is somebody else's turn."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

_ROWS = 64  # some tens of microseconds each


async def in_turns(rows: Iterable[T]) -> AsyncIterator[T]:
    """Yield rows; after some of them whatever else waits for the event loop goes on first.

    What is done with ten thousand rows at once would make every other request wait for all of it.
    """
    for done, row in enumerate(rows, start=1):
        yield row
        if not done % _ROWS:
            await asyncio.sleep(0)
