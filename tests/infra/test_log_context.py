"""Log lines name the task that their context works for."""

import json
import logging
import threading
from contextvars import copy_context

from tracer_serve.infra.log_context import TASK, within
from tracer_serve.server.http.request_tracing import JsonLines


def test_a_thread_works_for_the_task_that_made_it() -> None:
    """Whatever the maker does afterwards, and also when two threads call at once; a bare thread works for none."""
    seen: list[str] = []
    both = threading.Barrier(2)

    def work() -> None:
        both.wait(5)
        seen.append(TASK.get())

    def make(name: str) -> threading.Thread:
        TASK.set(name)
        return threading.Thread(target=within(work))

    threads = [copy_context().run(make, name) for name in ("colours", "moods")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == ["colours", "moods"]
    assert TASK.get() == ""


def test_a_line_of_json_has_the_task() -> None:
    """The task is a field of its own, and absent outside of a task."""
    record = logging.LogRecord(
        "tracer_serve.serving.active_version", logging.INFO, "live.py", 1, "version %d serves", (3,), None
    )

    def line(task: str) -> dict[str, str]:
        TASK.set(task)
        found: dict[str, str] = json.loads(JsonLines().format(record))
        return found

    named = copy_context().run(line, "colours")
    assert (named["task"], named["message"]) == ("colours", "version 3 serves")
    assert "task" not in copy_context().run(line, "")
