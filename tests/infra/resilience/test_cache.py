from hypothesis import given
from hypothesis import strategies as st

from tests.infra.resilience.conftest import FakeTime
from tracer_serve.infra.resilience.ttl_cache import Cache


def test_forgets_by_age(clock: FakeTime) -> None:
    """An answer is kept for its time to live, however often it is used meanwhile."""
    cache = Cache[str, int](10, 60.0, clock=clock)
    cache.put("a", 1)
    clock.now += 59
    assert cache.get("a") == 1
    clock.now += 1
    assert cache.get("a") is None
    assert len(cache) == 0


def test_forgets_the_least_recently_used(clock: FakeTime) -> None:
    """Beyond its size the answer that was not asked for longest goes first."""
    cache = Cache[str, int](2, 60.0, clock=clock)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans())), st.integers(0, 4))
def test_is_bounded_and_never_wrong(steps: list[tuple[int, bool]], size: int) -> None:
    """After any sequence of uses it holds at most `size` answers, and an answer it gives is the last one put."""
    cache, last = Cache[int, int](size, 60.0, clock=lambda: 0.0), dict[int, int]()
    for number, (key, write) in enumerate(steps):
        if write:
            cache.put(key, number)
            last[key] = number
        else:
            assert cache.get(key) in (None, last.get(key))
        assert len(cache) <= size
