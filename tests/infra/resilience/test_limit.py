import asyncio

import pytest

from tracer_serve.errors import TeacherError
from tracer_serve.infra.caller import CALLER
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


def as_caller(name: str, limit: Limit, go: asyncio.Event, order: list[str]) -> "asyncio.Task[None]":
    """Hold a place as a caller, in a task of its own."""

    async def held() -> None:
        CALLER.set(name)
        async with limit.place():
            order.append(name)
            await go.wait()

    return asyncio.create_task(held())


async def test_one_caller_alone_leaves_a_place_and_a_part_of_the_queue() -> None:
    """Beside a caller that sends without end another one is served at once, and a third one still finds a queue."""
    limit, go, order = Limit(16, 20), asyncio.Event(), list[str]()
    greedy = [as_caller("greedy", limit, go, order) for _ in range(100)]
    await asyncio.sleep(0)
    assert (limit.in_flight, limit.waiting) == (15, 16)
    others = [as_caller(name, limit, go, order) for name in ("a", "b")]
    await asyncio.sleep(0)
    assert (order[-1], limit.in_flight, limit.waiting) == ("a", 16, 17)
    go.set()
    outcomes = await asyncio.gather(*greedy, *others, return_exceptions=True)
    assert sum(isinstance(outcome, TeacherError) for outcome in outcomes) == 100 - 31
    assert not any(isinstance(outcome, TeacherError) for outcome in outcomes[100:])
    assert (limit.in_flight, limit.waiting, limit._queues) == (0, 0, {})


async def test_places_go_to_callers_in_turn() -> None:
    """A caller with one call waits for one place, however many calls others queued before."""
    limit, go, order = Limit(1, 20), [asyncio.Event() for _ in range(6)], list[str]()
    tasks = [as_caller("greedy", limit, go[i], order) for i in range(5)]
    await asyncio.sleep(0)
    tasks.append(as_caller("single", limit, go[5], order))
    for event in go:
        event.set()
    await asyncio.gather(*tasks)
    assert order == ["greedy", "greedy", "single", "greedy", "greedy", "greedy"]
