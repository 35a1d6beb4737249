"""The pipeline's stage."""

import threading
from collections.abc import Iterator

import pytest

from tracer_serve.serving.batch.prefetch import prefetch


def test_order_is_kept_and_an_error_comes_where_its_item_would() -> None:
    """Items before a failure are all yielded, in order, and the failure is the producer's own."""

    def produce() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the sixth")

    items = prefetch(produce())
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="the sixth"):
        next(items)


def test_never_further_ahead_than_its_depth_and_no_thread_stays() -> None:
    """The producer is at most `depth` items in front, and leaving early ends its thread."""
    made = []

    def produce() -> Iterator[int]:
        for n in range(100):
            made.append(n)
            yield n

    items = prefetch(produce(), depth=3)
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tracer-ahead")]
