"""A long list leaves the event loop to others now and then."""

import asyncio

import pytest

from tracer_serve.infra.cooperative import in_turns

pytestmark = pytest.mark.anyio


async def _turns_of_another(rows: int) -> int:
    """How often another task gets its turn while so many rows are gone through."""
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
    """All rows come, in order, and in between another task goes on many times."""
    assert await _turns_of_another(1_000) >= 10


async def test_a_lone_row_waits_for_nobody() -> None:
    """One row is gone through without leaving the event loop."""
    assert await _turns_of_another(1) == 1
