import asyncio
import contextlib

import pytest

from tests.infra.resilience.conftest import FakeTime
from tracer_serve.errors import TeacherError
from tracer_serve.infra.resilience.circuit_breaker import Breaker

OUTAGE = TeacherError("down", reason="unavailable")


def attempt(breaker: Breaker, error: BaseException | None = None) -> None:
    with contextlib.suppress(TeacherError, asyncio.CancelledError), breaker.attempt():
        if error is not None:
            raise error


def state(breaker: Breaker) -> str:
    return breaker.state


def broken(clock: FakeTime) -> Breaker:
    breaker = Breaker("host", failures=3, open_s=10.0, clock=clock)
    for _ in range(3):
        attempt(breaker, OUTAGE)
    return breaker


def test_opens_after_outages_in_a_row(clock: FakeTime) -> None:
    """Two outages, a success and two outages leave it closed; the third in a row opens it."""
    breaker = Breaker("host", failures=3, open_s=10.0, clock=clock)
    for error in (OUTAGE, OUTAGE, None, OUTAGE, OUTAGE):
        attempt(breaker, error)
    assert state(breaker) == "closed"
    attempt(breaker, OUTAGE)
    assert state(breaker) == "open"


@pytest.mark.parametrize("reason", ["rate_limited", "rejected", "unknown_label"])
def test_an_endpoint_that_answers_is_up(clock: FakeTime, reason: str) -> None:
    """Rate limits and refusals come from an endpoint that is up: they never open it."""
    breaker = Breaker("host", failures=1, clock=clock)
    for _ in range(20):
        attempt(breaker, TeacherError("no", reason=reason))
    assert state(breaker) == "closed"


def test_refuses_at_once_and_says_until_when(clock: FakeTime) -> None:
    """While open, the body does not run, and the error contains the seconds to the next probe."""
    breaker = broken(clock)
    clock.now += 4
    with pytest.raises(TeacherError) as caught, breaker.attempt():
        pytest.fail("the call was made")
    assert (caught.value.reason, caught.value.retry_after_s) == ("circuit_open", 6.0)


def test_one_probe_at_a_time(clock: FakeTime) -> None:
    """Half open, the first call is the probe and a second one beside it is refused."""
    breaker = broken(clock)
    clock.now += 10
    assert state(breaker) == "half_open"
    with breaker.attempt(), pytest.raises(TeacherError, match="probe"), breaker.attempt():
        pytest.fail("two probes at a time")
    assert state(breaker) == "closed"


def test_a_failed_probe_opens_it_anew(clock: FakeTime) -> None:
    """A probe that meets an outage starts the wait from its end."""
    breaker = broken(clock)
    clock.now += 10
    attempt(breaker, OUTAGE)
    clock.now += 9.9
    assert state(breaker) == "open"
    clock.now += 0.2
    attempt(breaker)
    assert state(breaker) == "closed"


def test_a_cancelled_probe_says_nothing(clock: FakeTime) -> None:
    """Cancelling the probe leaves it half open, and the next call is the probe."""
    breaker = broken(clock)
    clock.now += 10
    attempt(breaker, asyncio.CancelledError())
    assert state(breaker) == "half_open"
    attempt(breaker)
    assert state(breaker) == "closed"


def test_a_late_outage_does_not_prolong_the_wait(clock: FakeTime) -> None:
    """A call that began before it opened, and fails after, changes nothing."""
    breaker = Breaker("host", failures=3, open_s=10.0, clock=clock)
    with contextlib.suppress(TeacherError), breaker.attempt():
        for _ in range(3):
            attempt(breaker, OUTAGE)
        clock.now += 9
        raise OUTAGE
    clock.now += 1
    assert state(breaker) == "half_open"
