"""The schedule: when a refit starts, that it starts once, and how it ends."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.server.worlds import make_task
from tests.storage.traces.make import past
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until
from tracer_serve.cli.main import parser
from tracer_serve.config.load import Task
from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.lifecycle.gate_state.closing import close_gate, closing_of
from tracer_serve.lifecycle.gate_state.reopening import ATTEMPT
from tracer_serve.lifecycle.refit_history import LAST
from tracer_serve.lifecycle.refit_process import RefitProcess, RefitResult
from tracer_serve.lifecycle.scheduler import RefitScheduler
from tracer_serve.lifecycle.teacher_change import note_teacher
from tracer_serve.lifecycle.triggers import REQUEST, request_refit
from tracer_serve.storage.traces import TraceStore, new_id, open_store
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.types import Trace

REPORT = {"version": 3, "activated": True, "certificate": {"certified": True, "coverage": 0.5}}
NOTE = "import os, sys; open({log!r}, 'a').write(sys.argv[1] + '\\n')\n"


class World:
    """A task with a store, and processes that note their start instead of fitting."""

    def __init__(self, folder: Path, stub: StubLLM) -> None:
        self.folder, self.stub = folder, stub
        self.log = folder / "started"
        self.store: TraceStore = open_store(folder / "traces.db", "colours")
        self.outcomes: list[str] = []

    def schedule(
        self, script: str = f"print('''{json.dumps(REPORT)}''')", task: Any = None, **spec: Any
    ) -> RefitScheduler:
        other: dict[str, Any] = task or {}
        made: Task = make_task(self.folder, self.stub, **{"schedule": spec, "gate": {"alpha": 0.95}, **other})
        code = NOTE.format(log=str(self.log)) + script
        process = RefitProcess(made.file, limit_s=5.0, command=[sys.executable, "-S", "-c", code])
        versions = LocalVersions(made.state / "versions")
        return RefitScheduler(made, self.store, versions, self.outcomes.append, process=process, poll_s=0.05)

    def add(self, n: int) -> None:
        now = datetime.now(UTC)
        rows = [Trace(id=new_id(), ts=now, task="colours", input="a", teacher_label="red") for _ in range(n)]
        self.store.traces.add(rows)

    @property
    def started(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def world(tmp_path: Path, stub_llm: StubLLM) -> Iterator[World]:
    """A world with an empty store."""
    made = World(tmp_path, stub_llm)
    yield made
    made.store.close()


def test_enough_new_traces_start_one_refit(world: World) -> None:
    """A refit starts at the n-th new labelled trace, not before, and not again for the same traces."""
    schedule = world.schedule(min_new_traces=3)
    world.add(2)
    schedule.poll()
    assert world.started == []
    world.add(1)
    schedule.poll()
    schedule.poll()
    assert world.started == ["new_traces"]
    world.add(3)
    schedule.poll()
    assert world.started == ["new_traces"] * 2


def test_a_failed_refit_is_not_repeated_without_new_traces(world: World) -> None:
    """What failed on these traces would fail again: the next attempt waits for more, and the failure is told."""
    schedule = world.schedule("sys.exit('error: one label only')", min_new_traces=3)
    world.add(3)
    for _ in range(3):
        schedule.poll()
    assert world.started == ["new_traces"]
    assert world.outcomes == ["failed"]
    assert world.store.values.get(LAST)["message"] == "error: one label only"


def test_many_schedules_start_one_refit(world: World) -> None:
    """Six workers see the same request at the same moment; one starts."""
    schedules = [world.schedule() for _ in range(6)]
    request_refit(world.store)
    barrier = threading.Barrier(6)

    def look(schedule: RefitScheduler) -> None:
        barrier.wait()
        schedule.poll()

    threads = [threading.Thread(target=look, args=(schedule,)) for schedule in schedules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.started == ["hand"]
    assert world.store.values.get(REQUEST) is None


def test_cron_fires_once_over_all_workers(world: World) -> None:
    """The second worker to hear the clock finds that time's refit done; the next day's is due again."""
    first, second = world.schedule(cron="0 3 * * *"), world.schedule(cron="0 3 * * *")
    first.fire("cron")
    second.fire("cron")
    assert world.started == ["cron"]
    yesterday = datetime.now(UTC) - timedelta(days=1, minutes=1)
    world.store.values.put(ATTEMPT, {"started": yesterday.isoformat(), "latest": ""})
    second.fire("cron")
    assert world.started == ["cron"] * 2


def test_the_interval_is_kept_by_the_clock(world: World) -> None:
    """A running schedule with an interval refits again and again, by itself."""
    schedule = world.schedule(interval_s=0.3)
    schedule.start()
    try:
        until(lambda: len(world.started) >= 2)
    finally:
        schedule.stop()
    assert set(world.started) == {"interval"}
    assert set(world.outcomes) <= {"certified", "stopped"}


def test_nothing_starts_while_a_refit_from_the_command_line_runs(world: World) -> None:
    """A request waits while somebody else holds the refit lease, and is served after it."""
    schedule = world.schedule()
    world.store.leases.acquire("refit", "somebody", 60)
    request_refit(world.store)
    schedule.poll()
    assert world.started == []
    world.store.leases.release("refit", "somebody")
    schedule.poll()
    assert world.started == ["hand"]


def test_stopping_ends_the_refit_within_seconds(world: World) -> None:
    """A service that stops does not wait for a long refit, and leaves no process behind."""
    pid_file = world.folder / "pid"
    schedule = world.schedule(f"import time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    request_refit(world.store)
    schedule.start()
    until(lambda: pid_file.exists() and pid_file.read_text())
    schedule.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert world.outcomes == ["stopped"]
    assert world.store.leases.holder("schedule") is None


def test_a_refit_that_the_service_took_along_is_made_up_for(world: World) -> None:
    """After a restart amid the refit of a closed gate the next process runs it again, for the same reason, once."""
    describe(world)
    close_gate(world.store, version=1, audits=50, agreements=20, evidence=40.0)
    world.add(4 * n_min(0.95, 0.05))
    stopped = world.schedule("import time; time.sleep(600)")
    stopped.start()
    until(lambda: world.started)
    stopped.stop()
    after = world.schedule()
    after.poll()
    after.poll()
    assert world.started == ["alarm"] * 2
    assert world.outcomes == ["stopped", "certified"]


def test_a_first_version_is_asked_for_until_there_is_one(world: World) -> None:
    """What a start asked for begins once the lease is free, and not at all where a version came meanwhile."""
    schedule = world.schedule()
    request_refit(world.store, "start")
    schedule.poll()
    assert world.started == ["start"]
    describe(world)
    request_refit(world.store, "start")
    schedule.poll()
    assert world.started == ["start"]
    assert world.store.values.get(REQUEST) is None


def run(script: str, limit_s: float = 20.0) -> tuple[str, int | None, str]:
    """Run a refit process made of a script."""
    found = RefitProcess(Path("t.yaml"), limit_s, None, 0.5, [sys.executable, "-S", "-c", script]).run("hand")
    return found.outcome, found.version, found.message


def test_each_end_of_a_process_has_its_outcome() -> None:
    """Certified, abstained, busy, failed, killed and nonsense are told apart."""
    abstained = REPORT | {"activated": False, "certificate": {"certified": False, "coverage": 0.0}}
    assert run(f"print('''{json.dumps(REPORT)}''')") == ("certified", 3, "version 3 serves, coverage 0.500")
    assert run(f"print('''{json.dumps(abstained)}''')")[:2] == ("abstained", 3)
    assert run("import sys; sys.exit('error: another refit is under way (x)')")[0] == "busy"
    assert run("1 / 0") == ("failed", None, "ZeroDivisionError: division by zero")
    assert run("print('no report')")[0] == "failed"
    assert run(f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})")[0] == "stopped"


def test_a_refit_that_takes_too_long_is_ended() -> None:
    """The time bound holds even against a process that ignores the polite signal."""
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    assert run(stubborn, limit_s=0.5)[0] == "timeout"


def test_a_refit_is_niced_and_keeps_to_one_core() -> None:
    """The process runs at a lower priority than its parent and its BLAS with one thread."""
    script = (
        "import json, os, time; time.sleep(0.5);"
        "r = {'version': os.getpriority(os.PRIO_PROCESS, 0), 'activated': True,"
        " 'certificate': {'certified': True, 'coverage': float(os.environ['OMP_NUM_THREADS'])}}; print(json.dumps(r))"
    )
    _, niceness, message = run(script)
    assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10) or niceness == 10
    assert message.endswith("coverage 1.000")


def test_the_command_that_is_started_exists() -> None:
    """The module and the options that the subprocess is started with are the command line's own."""
    _, _, _, module, name, *words = RefitProcess(Path("task.yaml")).command
    assert (module, name) == ("tracer_serve", "refit")
    args = parser(name).parse_args([name, *words, "cron"])
    assert args.parent == os.getpid()
    assert (args.task, args.json, args.trigger) == (Path("task.yaml"), True, "cron")


def describe(world: World, **facts: Any) -> None:
    """Make version 1 of another teacher's labels current, as far as the schedule looks."""
    manifest = {
        "version": 1, "created": "", "task": "colours", "certified": True, "reason": "certified", "parent": None,
        "traces": 1, "last_trace": "", "embedder": "e", "teacher": "t", "plugins": {}, "software": {}, "files": {},
    }  # fmt: skip
    folder = world.folder / "state" / "versions" / "000001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest | facts))
    certificate = Certificate(True, "certified", 0.95, 0.05, "cross_fit", 100, 90, 88, 0.95, 0.3, 0.9)
    (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(certificate))
    (folder.parent / "current").write_text("1")


def test_a_closed_gate_is_repaired_once_there_are_rows_and_again_with_more(world: World) -> None:
    """The alarm's refit waits for four times the least number of rows, and is tried again at half as many more."""
    describe(world)
    schedule = world.schedule()
    world.add(500)
    close_gate(world.store, version=1, audits=50, agreements=20, evidence=40.0)
    world.add(4 * n_min(0.95, 0.05) - 1)
    schedule.poll()
    assert world.started == []
    world.add(1)
    schedule.poll()
    schedule.poll()
    assert world.started == ["alarm"]
    world.add(2 * n_min(0.95, 0.05))
    schedule.poll()
    assert world.started == ["alarm"] * 2
    closing = closing_of(world.store)
    assert closing is not None
    describe(world, after=closing.after)
    world.add(1_000)
    schedule.poll()
    assert world.started == ["alarm"] * 2


def test_a_promise_that_was_raised_is_tried_at_once_and_then_with_more_rows(world: World) -> None:
    """A higher alpha in the YAML starts a refit on the rows that are there; one that did not certify waits for more."""
    describe(world)
    world.add(400)
    world.schedule().poll()
    assert world.started == []
    raised = world.schedule(task={"gate": {"alpha": 0.97}})
    raised.poll()
    raised.poll()
    assert world.started == ["promise"]
    world.add(200)
    raised.poll()
    assert world.started == ["promise"] * 2
    world.schedule(task={"gate": {"alpha": 0.9}}).poll()
    assert world.started == ["promise"] * 2


def test_another_teacher_is_asked_about_old_texts_at_once_or_waited_for(world: World) -> None:
    """`fresh` waits for as many new labels as a repair; `paired` starts without any, once."""
    describe(world)
    note_teacher(world.store, "t")
    note_teacher(world.store, "new")
    world.schedule().poll()
    assert world.started == []
    paired = world.schedule(task={"traces": {"migrate": "paired"}})
    paired.poll()
    paired.poll()
    assert world.started == ["teacher"]


def test_a_label_that_recurs_starts_a_refit(world: World) -> None:
    """The third row with a label unknown to the newest version starts one; known labels do not."""
    describe(world, labels=["blue"])
    world.add(2)
    world.schedule(new_label=3).poll()
    assert world.started == []
    world.add(1)
    for _ in range(2):
        world.schedule(new_label=3).poll()
    assert world.started == ["new_label"]
    describe(world, labels=["red"])
    world.add(3)
    world.schedule(new_label=3).poll()
    assert world.started == ["new_label"]


def test_a_clock_that_is_set_back_does_not_stop_the_schedule(world: World) -> None:
    """An attempt that lies in the future, from before the clock was mended, holds nothing up."""
    world.store.values.put(ATTEMPT, {"started": (datetime.now(UTC) + timedelta(days=900)).isoformat(), "latest": ""})
    world.schedule(cron="0 3 * * *").fire("cron")
    assert world.started == ["cron"]


def test_old_rows_go_by_themselves(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Each hour what nobody labelled within the time goes, and is told; a service that stops does not wait for it."""
    unlabelled: dict[str, Any] = {"task": "colours", "input": "a", "decision": "handled"}
    with past(days=3):
        world.store.traces.add([Trace(id=new_id(), ts=datetime.now(UTC), **unlabelled) for _ in range(1_200)])
        world.add(3)
    world.store.traces.add([Trace(id=new_id(), ts=datetime.now(UTC), **unlabelled)])
    schedule = world.schedule(task={"traces": {"keep_unlabelled_days": 2}})
    assert str(schedule._scheduler.get_jobs()[-1].trigger) == "cron[minute='17']"
    schedule._stopping.set()
    schedule.prune()
    assert world.store.tallies.pruned_rows() == 500
    schedule._stopping.clear()
    with caplog.at_level("INFO"):
        schedule.prune()
    assert (world.store.tallies.pruned_rows(), world.store.traces.count()) == (1_200, 4)
    assert "removed 700 rows without a label that were older than 2 days" in caplog.text
    assert len(world.schedule()._scheduler.get_jobs()) == 1


def test_a_refit_has_no_more_memory_than_it_may() -> None:
    """What allocates beyond the bound fails with a message, in its own process."""
    script = (
        "import time; time.sleep(.5)\ntry:\n    b'x' * 10**9\nexcept MemoryError: raise SystemExit('error: memory')"
    )
    process = RefitProcess(Path("t.yaml"), 20.0, 300.0, 0.5, [sys.executable, "-S", "-c", script])
    assert process.run("hand") == RefitResult("failed", None, "error: memory")
