"""Wait for what other threads and processes do."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LEAST_S, _MOST_S = 0.02, 0.5  # between two looks: a tenth of the time waited, since looking takes CPU too


def until(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait until a condition holds and return its value; fail after some seconds. A machine under load is slow."""
    began = time.monotonic()
    while not (found := condition()):
        time.sleep(_pause(began, seconds))
    return found


async def until_async(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait as `until` does, without blocking the event loop."""
    began = time.monotonic()
    while not (found := condition()):  # noqa: ASYNC110  # other threads and processes set no event of this loop
        await asyncio.sleep(_pause(began, seconds))
    return found


def _pause(began: float, seconds: float) -> float:
    waited = time.monotonic() - began
    assert waited < seconds, f"the condition did not hold within {seconds:.0f} s"
    return min(max(_LEAST_S, waited / 10), _MOST_S)
