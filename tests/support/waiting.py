"""Wait for what other threads and processes do."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.02


def until(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait until a condition holds and return its value; fail after some seconds. A machine under load is slow."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"the condition did not hold within {seconds:.0f} s"
        time.sleep(_PAUSE_S)
    return found


async def until_async(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait as `until` does, without blocking the event loop."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"the condition did not hold within {seconds:.0f} s"
        await asyncio.sleep(_PAUSE_S)
    return found
