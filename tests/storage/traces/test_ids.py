import os
import threading
import time
from uuid import RFC_4122, UUID

import pytest

from tracer_serve.infra.uuid7 import IdGenerator, new_id


def test_ids_grow() -> None:
    """Each id is greater, as a string, than every one made before it in the process."""
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_threads_share_one_order() -> None:
    """Ids of many threads never collide, and each thread sees its own grow."""
    found: list[list[str]] = [[] for _ in range(8)]

    def work(mine: list[str]) -> None:
        mine.extend(new_id() for _ in range(2_000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in found)
    assert len({one for mine in found for one in mine}) == 16_000


def test_ids_are_version_7() -> None:
    """An id is a valid UUID of version 7 whose first 48 bits are the time in milliseconds."""
    before = time.time_ns() // 1_000_000
    made = UUID(new_id())
    assert (made.version, made.variant) == (7, RFC_4122)
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_a_clock_set_back_keeps_the_order() -> None:
    """Ids still grow while the clock is an hour behind."""
    now = [time.time_ns()]
    generator = IdGenerator(lambda: now[0])
    first = generator.new()
    now[0] -= 3_600_000_000_000
    made = [first, *(generator.new() for _ in range(1_000))]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_draws_its_own() -> None:
    """Parent and child make no id twice, though they start from the same state."""
    new_id()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, "\n".join(new_id() for _ in range(500)).encode())
        os._exit(0)
    os.close(write)
    mine = {new_id() for _ in range(500)}
    with os.fdopen(read) as pipe:
        theirs = set(pipe.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 500
    assert not mine & theirs
