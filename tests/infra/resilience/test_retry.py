import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.resilience.conftest import FakeTime
from tracer_serve.errors import TeacherError
from tracer_serve.infra.resilience.retry import TRANSIENT, Retry, retry_after

pytestmark = pytest.mark.anyio
Try = Callable[[], Awaitable[str]]


def failing(*reasons: str, retry_after_s: float | None = None) -> Try:
    """Return a call that fails with these reasons in turn, then answers ``ok``."""
    left = list(reasons)

    async def call() -> str:
        if left:
            raise TeacherError("down", reason=left.pop(0), retry_after_s=retry_after_s)
        return "ok"

    return call


def patient(clock: FakeTime, retries: int = 3, seed: int = 0) -> Retry:
    return Retry(retries, base_s=1.0, cap_s=4.0, clock=clock, sleep=clock.sleep, rng=random.Random(seed))


@pytest.mark.parametrize("reason", sorted(TRANSIENT))
async def test_a_transient_failure_is_tried_again(clock: FakeTime, reason: str) -> None:
    """A timeout, a 429 and an outage are retried until the endpoint answers."""
    assert await patient(clock).run([failing(reason, reason, reason)], until=2000) == "ok"
    assert len(clock.slept) == 3


@pytest.mark.parametrize("reason", ["rejected", "circuit_open", "unknown_label"])
async def test_a_lasting_failure_is_not_tried_again(clock: FakeTime, reason: str) -> None:
    """An error that a retry cannot help is raised at once, without a pause."""
    with pytest.raises(TeacherError) as caught:
        await patient(clock).run([failing(reason)], until=2000)
    assert caught.value.reason == reason
    assert clock.slept == []


async def test_retries_are_bounded(clock: FakeTime) -> None:
    """After the last round the last error is raised."""
    with pytest.raises(TeacherError, match="down"):
        await patient(clock, retries=2).run([failing(*["timeout"] * 3)], until=2000)
    assert len(clock.slept) == 2


async def test_pauses_are_fully_jittered(clock: FakeTime) -> None:
    """Pauses are spread over the whole of (0, min(cap, base * 2**round)), so that callers do not come back together."""
    for seed in range(300):
        await patient(clock, seed=seed).run([failing(*["unavailable"] * 3)], until=1e9)
    for turn, bound in enumerate((1.0, 2.0, 4.0)):
        pauses = clock.slept[turn::3]
        assert max(pauses) <= bound
        assert min(pauses) < 0.1 * bound
        assert max(pauses) > 0.9 * bound


async def test_retry_after_is_waited_for(clock: FakeTime) -> None:
    """A pause is never shorter than the endpoint asked for, although the jitter's cap is."""
    await patient(clock).run([failing("rate_limited", retry_after_s=30.0)], until=2000)
    assert clock.slept == [30.0]


async def test_a_pause_past_the_deadline_is_not_begun(clock: FakeTime) -> None:
    """Where Retry-After lies beyond the deadline the error is raised at once and says when to come back."""
    with pytest.raises(TeacherError) as caught:
        await patient(clock).run([failing("rate_limited", retry_after_s=30.0)], until=clock.now + 29)
    assert (caught.value.reason, caught.value.retry_after_s, clock.slept) == ("rate_limited", 30.0, [])


async def test_a_fallback_is_asked_without_a_pause(clock: FakeTime) -> None:
    """The second endpoint is called in the same round after any failure of the first."""
    for reason in ("timeout", "rejected", "circuit_open"):
        assert await patient(clock).run([failing(reason), failing()], until=2000) == "ok"
    assert clock.slept == []


async def test_an_endpoint_that_asked_for_time_is_skipped_meanwhile(clock: FakeTime) -> None:
    """While one endpoint's Retry-After runs, rounds go on with the others."""
    asked: list[float] = []

    async def limited() -> str:
        asked.append(clock.now)
        raise TeacherError("slow down", reason="rate_limited", retry_after_s=60.0)

    answer = await patient(clock).run([limited, failing("timeout", "timeout")], until=2000)
    assert answer == "ok"
    assert asked == [1000.0]
    assert len(clock.slept) == 2
    assert clock.now < 1010


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and both spellings of an HTTP date are read; nonsense asks for nothing."""
    assert retry_after(headers, datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)) == seconds


@given(st.text(max_size=40))
def test_no_header_breaks_it(value: str) -> None:
    """Whatever a server sends, the wait is None or a finite number of seconds that is not negative."""
    seconds = retry_after({"retry-after": value, "retry-after-ms": value})
    assert seconds is None or 0 <= seconds < float("inf")
