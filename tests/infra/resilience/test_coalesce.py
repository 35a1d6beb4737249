import asyncio

import pytest

from tracer_serve.infra.resilience.single_flight import Coalesce

pytestmark = pytest.mark.anyio


class Calls:
    """Count calls; they end when released."""

    def __init__(self) -> None:
        self.made = self.cancelled = 0
        self.go = asyncio.Event()

    async def call(self) -> int:
        self.made += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.made


async def fly(flights: Coalesce[str, int], calls: Calls, n: int) -> list[asyncio.Task[tuple[int, bool]]]:
    tasks = [asyncio.create_task(flights.run("a", calls.call)) for _ in range(n)]
    await asyncio.sleep(0.001)
    return tasks


async def test_one_call_for_all() -> None:
    """Ten callers make one call, and exactly one of them is the first to get its outcome."""
    flights, calls = Coalesce[str, int](), Calls()
    tasks = await fly(flights, calls, 10)
    calls.go.set()
    outcomes = await asyncio.gather(*tasks)
    assert [value for value, _ in outcomes] == [1] * 10
    assert sum(first for _, first in outcomes) == 1
    assert len(flights) == 0


async def test_a_cancelled_waiter_leaves_the_others_their_answer() -> None:
    """The caller that started the call may leave; the others get the answer and one of them is the first."""
    flights, calls = Coalesce[str, int](), Calls()
    tasks = await fly(flights, calls, 3)
    tasks[0].cancel()
    await asyncio.sleep(0.001)
    calls.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert sorted(str(outcome) for outcome in outcomes[1:]) == ["(1, False)", "(1, True)"]
    assert calls.cancelled == 0


async def test_the_last_waiter_takes_the_call_with_it() -> None:
    """When all callers have left the call is cancelled, and the next caller makes a new one at once."""
    flights, calls = Coalesce[str, int](), Calls()
    for task in await fly(flights, calls, 3):
        task.cancel()
    await asyncio.sleep(0)
    (newcomer,) = await fly(flights, calls, 1)
    assert (calls.made, calls.cancelled) == (2, 1)
    calls.go.set()
    assert await newcomer == (2, True)


async def test_an_error_reaches_every_waiter_and_is_not_kept() -> None:
    """All callers get the call's error; the next caller makes a new call."""
    flights = Coalesce[str, int]()
    made = 0

    async def fail() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        raise ValueError(str(made))

    for expected in ("1", "2"):
        outcomes = await asyncio.gather(*(flights.run("a", fail) for _ in range(3)), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == [expected] * 3
