"""A long list leaves the event loop to others now and then."""

import asyncio

import pytest

from tracer_serve.infra.cooperative import in_turns

pytestmark = pytest.mark.anyio


async def _turns_of_another(rows: int) -> int:
    """Return how often another task runs while rows are iterated."""
    turns, over = 0, False

    async def other() -> None:
        nonlocal turns
        while not over:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.create_task(other())
    await asyncio.sleep(0)
    assert [row async for row in in_turns(range(rows))] == [*range(rows)]
    over = True
    await waiting
    return turns


async def test_others_get_their_turn_during_a_long_list() -> None:
    """All rows arrive in order, and another task runs many times in between."""
    assert await _turns_of_another(1_000) >= 10


async def test_a_lone_row_waits_for_nobody() -> None:
    """One row is gone through without leaving the event loop."""
    assert await _turns_of_another(1) == 1
