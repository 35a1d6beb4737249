import asyncio

import pytest

from tracer_serve.errors import TeacherError
from tracer_serve.infra.resilience.concurrency_limit import Limit

pytestmark = pytest.mark.anyio


async def hold(limit: Limit, go: asyncio.Event, order: list[int], number: int) -> None:
    async with limit.place():
        order.append(number)
        await go.wait()


async def test_bounds_calls_and_queue() -> None:
    """Of 10 callers 2 are in flight and 3 wait; the others are refused at once, and places go in order of arrival."""
    limit, go, order = Limit(2, 3), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(hold(limit, go, order, number)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (limit.in_flight, limit.waiting) == (2, 3)
    assert sum(task.done() for task in tasks) == 5
    go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, TeacherError)]
    assert [error.reason for error in refused] == ["overloaded"] * 5
    assert order == [0, 1, 2, 3, 4]
    assert (limit.in_flight, limit.waiting) == (0, 0)


async def test_a_cancelled_waiter_frees_its_place() -> None:
    """Cancelling callers, waiting or in flight, leaves every place to the others."""
    limit, go, order = Limit(1, 5), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(hold(limit, go, order, number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2]
    async with limit.place():
        assert (limit.in_flight, limit.waiting) == (1, 0)


async def test_no_queue() -> None:
    """With a queue of 0 a call is made or refused."""
    limit = Limit(1, 0)
    async with limit.place():
        with pytest.raises(TeacherError, match="max_concurrency"):
            async with limit.place():
                pytest.fail("beyond the limit")
    async with limit.place():
        assert limit.in_flight == 1
