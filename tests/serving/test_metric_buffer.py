"""Numbers that are noted first and written later."""

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tracer_serve.serving.metric_buffer import Count, Seconds

BUCKETS = (0.1, 0.5, 1.0)


@given(st.lists(st.one_of(st.floats(0, 3), st.sampled_from(BUCKETS))))
def test_durations_land_where_the_library_would_have_put_them(durations: list[float]) -> None:
    """Written together, or observed one by one: the same buckets, count and sum, to the last digit but rounding."""
    found, wanted = CollectorRegistry(), CollectorRegistry()
    gathered = Seconds(Histogram("d", "d", buckets=BUCKETS, registry=found))
    single = Histogram("d", "d", buckets=BUCKETS, registry=wanted)
    for i, duration in enumerate(durations):
        gathered.observe(duration)
        single.observe(duration)
        if i % 3 == 0:
            gathered.write()
    gathered.write()
    for name, labels in [("d_count", {}), ("d_sum", {}), *(("d_bucket", {"le": str(le)}) for le in BUCKETS)]:
        one, other = (registry.get_sample_value(name, labels) for registry in (found, wanted))
        assert one is not None
        assert other is not None
        assert abs(one - other) < 1e-9


def test_no_increment_is_lost_between_threads() -> None:
    """What several threads count while others write is there in the end, each once."""
    registry = CollectorRegistry()
    count = Count(Counter("c", "c", registry=registry))
    guard, done = threading.Lock(), threading.Event()

    def note() -> None:
        for _ in range(20_000):
            count.inc()

    def write() -> None:
        while not done.is_set():
            with guard:
                count.write()

    noting, writing = [threading.Thread(target=note) for _ in range(3)], threading.Thread(target=write)
    for thread in (writing, *noting):
        thread.start()
    for thread in noting:
        thread.join()
    done.set()
    writing.join()
    count.write()
    assert b"c_total 60000.0" in generate_latest(registry)
