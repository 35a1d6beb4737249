"""Work for a client only as long as it stays connected."""

import asyncio
from collections.abc import Coroutine

from starlette.types import Receive


async def while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Run `work` to its end, or cancel it once the client has left.

    Parameters
    ----------
    receive : of the request, whose body was read
    """
    passing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (passing, leaving):
            task.cancel()
        outcome, _ = await asyncio.gather(passing, leaving, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
