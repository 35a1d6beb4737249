"""Kills processes of a fleet with SIGKILL at random moments, under load, and looks afterwards at what each of them saw.

    python -m tests.faults.replicas FOLDER SEED KILLS

Two machines, each a folder with an API process and a process that refits without end; between them Postgres and an S3
server; a process lets unlabelled rows go after seconds, a person rolls back and forth, and an observer notes `current`.
Half of the requests go to the teacher whatever a version has learnt meanwhile (a canary), so that rows are acknowledged
from the first kill to the last. One machine pretends to be another host, so that its dead refits cannot be told dead
and their lease, made short, has to run out. Now and then all connections to Postgres are cut, or the S3 server freezes.
Prints one JSON line of what was seen.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import aiobotocore.session  # noqa: F401  # once for all forks
import s3fs  # noqa: F401
from sqlalchemy import create_engine

from tests.faults.driver import fork
from tests.storage.traces import postgres
from tests.storage.versions import object_store
from tests.support.tiny import TEXTS, rows_now, tiny_task
from tracer_serve.config.load import Task
from tracer_serve.errors import TracerServeError
from tracer_serve.lifecycle import refit as refitting
from tracer_serve.lifecycle import refit_session as refit_bounds
from tracer_serve.lifecycle import retention
from tracer_serve.lifecycle.refit import refit
from tracer_serve.serving.runtime import running
from tracer_serve.storage.traces import TraceStore, first_id
from tracer_serve.storage.traces import lease_owner as holder
from tracer_serve.storage.versions import CURRENT, open_versions
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Decision

_LEASE_S = 3.0
_LOOK_S = 0.01
_LOOKS_PER_REQUEST = 4


class Log:
    """Lines of time, word and value: whole, and kept when their process is killed."""

    def __init__(self, file: Path) -> None:
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, word: str, value: object = "") -> None:
        os.write(self._handle, f"{time.monotonic():.4f} {word} {value}\n".encode())


def serve(task: Task, log: Log) -> None:
    """Answer without end; note each row that was acknowledged, and each hundredth of a second what serves."""
    while True:
        try:
            asyncio.run(_serve(task, log))
        except TracerServeError as error:  # cut off from the store as it started: a restart policy would start it anew
            log("failed", f"{type(error).__name__}: {error}")


async def _serve(task: Task, log: Log) -> NoReturn:
    async with running(task, schedule=False) as runtime:
        for number in itertools.count():
            loaded = runtime.live.loaded
            log("serves", loaded.number if loaded else 0)
            if late := runtime.writer.lost + runtime.writer.delayed:
                log("told", late)
            if number % _LOOKS_PER_REQUEST == 0:
                results = await runtime.router.route([f"a qqqq wwww {number}", TEXTS[number % len(TEXTS)]])
                for result in results:
                    if isinstance(result, Decision) and result.kind == "deferred":
                        log("acknowledged", result.trace_id)
            await asyncio.sleep(_LOOK_S)
    raise AssertionError


def lead(task: Task, log: Log, *, elsewhere: bool) -> None:
    """Refit without end; note when a refit holds the lease."""
    if elsewhere:
        holder._here = lambda: "elsewhere"
    refit_bounds._LEASE_S = _LEASE_S
    module: Any = refitting
    inner = module.lease

    @contextmanager
    def noted(store: TraceStore, name: str) -> Iterator[Callable[[], None]]:
        with inner(store, name) as require:
            log("enters")
            try:
                yield require
            finally:
                log("leaves")

    module.lease = noted
    while True:
        try:
            log("wrote", refit(task).version)
        except TracerServeError as error:
            log("failed", f"{type(error).__name__}: {error}")
        time.sleep(0.1)


def clear(task: Task, log: Log) -> None:
    """Let rows that nobody labelled go after two seconds instead of days, without end."""
    module: Any = retention
    module.cutoff = lambda _: first_id(datetime.now(UTC) - timedelta(seconds=2))
    while True:
        try:
            _clear(task, log)
        except TracerServeError as error:  # cut off from the store, perhaps as it was opened
            log("failed", f"{type(error).__name__}: {error}")


def _clear(task: Task, log: Log) -> NoReturn:
    store = store_of(task)
    while True:
        log("cleared", retention.prune(store, timedelta(days=1)))
        time.sleep(0.1)


def roll(task: Task, log: Log) -> None:
    """Do what a person does in a hurry: let any of the versions serve."""
    versions, rng = open_versions(task), random.Random(1)
    while True:
        time.sleep(rng.uniform(0.5, 1.5))
        try:
            versions._forget_listing()  # type: ignore[attr-defined]  # a command line starts anew each time
            versions.activate(rng.choice(versions.numbers()[-3:]))
        except TracerServeError as error:  # collected meanwhile, or something is cut
            log("failed", f"{type(error).__name__}: {error}")


def observe(task: Task, log: Log) -> None:
    """Note what the store says is current."""
    store = store_of(task)
    while True:
        try:
            log("current", store.values.get(CURRENT) or 0)
        except TracerServeError as error:
            log("failed", f"{type(error).__name__}: {error}")
        time.sleep(_LOOK_S)


class Fleet:
    """The processes by name; each is started again when it was killed."""

    def __init__(self, tasks: list[Task], logs: Path) -> None:
        one, other = tasks
        self._logs, self._count = logs, itertools.count()
        self.work: dict[str, Callable[[Log], None]] = {
            "observer": lambda log: observe(other, log),
            "api-0": lambda log: serve(one, log),
            "api-1": lambda log: serve(other, log),
            "refit-0": lambda log: lead(one, log, elsewhere=False),
            "refit-1": lambda log: lead(other, log, elsewhere=True),
            "prune-0": lambda log: clear(one, log),
            "person": lambda log: roll(one, log),
        }
        self._running: dict[str, tuple[int, Path]] = {}

    def start(self, name: str) -> None:
        """Start a process, with a log of its own."""
        file = self._logs / f"{name}.{next(self._count)}"
        file.touch()
        self._running[name] = fork(lambda: self.work[name](Log(file))), file

    def settle(self, name: str, seconds: float = 20.0) -> None:
        """Wait until a process has got as far as to note something."""
        end = time.monotonic() + seconds
        while self._running[name][1].stat().st_size == 0 and time.monotonic() < end:
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        """Kill a process and note when."""
        pid, file = self._running.pop(name)
        os.kill(pid, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            raise SystemExit(f"{name} ended by itself, see above")
        Log(file)("killed")

    def stop(self) -> None:
        """Kill everything."""
        for name in list(self._running):
            self.kill(name)


Lines = list[tuple[float, str, str]]


def read(logs: Path, name: str) -> list[Lines]:
    """Return the logs of a process's lives."""
    found = []
    for file in sorted(logs.glob(f"{name}.*")):
        lines = [line.split(" ", 2) for line in file.read_text(encoding="utf-8").splitlines()]
        found.append([(float(at), word, value) for at, word, value in lines])
    return found


def overlaps(logs: Path) -> tuple[int, int, int]:
    """Return how many refits there were, how many began beside one that wrote a version, and beside one refused.

    A process that gets no CPU for as long as its lease is taken for dead while it lives. It is refused as it writes.
    """
    spans = []
    for name in ("refit-0", "refit-1"):
        for life in read(logs, name):
            for place, (at, word, _) in enumerate(life):
                if word == "enters":
                    after = [line for line in life[place:] if line[1] in ("leaves", "killed", "wrote", "failed")]
                    spans.append((at, after[0][0], after[min(1, len(after) - 1)][1]))
    spans.sort()
    beside = [earlier[2] for earlier, later in itertools.pairwise(spans) if later[0] < earlier[1]]
    return len(spans), beside.count("wrote"), len(beside) - beside.count("wrote")


def staleness(logs: Path) -> float:
    """Return the longest time for which a process served what was current no more, seconds."""
    (life, *rest) = read(logs, "observer")
    assert not rest
    seen = [(at, int(value)) for at, word, value in life if word == "current"]
    times, worst = [at for at, _ in seen], 0.0
    last: list[dict[int, float]] = []  # per look: when each number was current last
    known: dict[int, float] = {}
    for at, number in seen:
        known = {**known, number: at}
        last.append(known)
    for at, word, value in itertools.chain(*read(logs, "api-0"), *read(logs, "api-1")):
        place = bisect_right(times, at) - 1
        if word == "serves" and place >= 0 and int(value):
            # a swap may reach a process before the observer's next look
            ahead = place + 1 < len(seen) and seen[place + 1][1] == int(value)
            if not ahead and seen[place][1] != int(value):
                worst = max(worst, at - last[place][int(value)])
    return worst


def upset(rng: random.Random, url: str, s3: int) -> str | None:
    """Now and then cut all connections to Postgres, or freeze the S3 server for a moment."""
    draw = rng.random()
    if draw < 0.1:
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        engine.dispose()
        return "postgres cut"
    if draw < 0.2:
        os.kill(s3, signal.SIGSTOP)
        time.sleep(rng.uniform(0.2, 1.0))
        os.kill(s3, signal.SIGCONT)
        return "s3 frozen"
    return None


def run(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """Kill, and return what was seen."""
    rng, logs, seen = random.Random(seed), folder / "logs", Counter[str]()
    logs.mkdir()
    with postgres.server() as url, object_store.server() as (variables, s3):
        os.environ |= variables
        object_store.make_bucket()
        tasks = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            versions = {"url": f"s3://{object_store.BUCKET}/v", "keep": 4}
            traces = {"import": ["rows.jsonl"], "url": url, "audit_rate": 0.0}
            tasks.append(tiny_task(folder / name, traces=traces, versions=versions, mode="canary", canary=0.5))
        if os.waitpid(fork(lambda: refit(tasks[0])), 0)[1]:
            raise SystemExit("the first refit failed, see above")
        fleet = Fleet(tasks, logs)
        try:
            for name in fleet.work:
                fleet.start(name)
            for _ in range(kills):
                victim = rng.choice(["api-0", "api-1", "refit-0", "refit-1", "prune-0"])
                if rng.random() < 0.8:  # else it may be starting still
                    fleet.settle(victim)
                time.sleep(rng.uniform(0.0, 1.5))
                if (what := upset(rng, url, s3)) is not None:
                    seen[what] += 1
                fleet.kill(victim)
                seen[victim] += 1
                fleet.start(victim)
            for name in fleet.work:
                fleet.settle(name)
            time.sleep(5.0)
        finally:
            fleet.stop()
        return {"seen": seen, **look(tasks, logs)}


def look(tasks: list[Task], logs: Path) -> dict[str, Any]:
    """Check what is left, and return the figures."""
    lives = [*read(logs, "api-0"), *read(logs, "api-1")]
    acknowledged = {value for life in lives for _, word, value in life if word == "acknowledged"}
    store = store_of(tasks[0])
    there = {trace_id.decode() for trace_id in store.traces.columns(labelled_only=False).ids}
    rows, gone = store.tallies.counts().total.rows, store.tallies.pruned_rows()
    store.traces.add(rows_now(4))
    store.close()
    wrote = [int(v) for name in ("refit-0", "refit-1") for life in read(logs, name) for _, w, v in life if w == "wrote"]
    told = sum(max((int(value) for _, word, value in life if word == "told"), default=0) for life in lives)
    names = ("api-0", "api-1", "refit-0", "refit-1", "prune-0", "person", "observer")
    everybody = [life for name in names for life in read(logs, name)]
    failed = Counter(value.partition(":")[0] for life in everybody for _, word, value in life if word == "failed")
    refits, at_once, refused = overlaps(logs)
    time.sleep(_LEASE_S)
    versions = open_versions(tasks[1])
    whole = [versions.verify(number).version for number in versions.numbers()]
    return {
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - there),
        "told_late": told,
        "counted": rows == len(there) + gone,
        "let_go": gone,
        "refits": refits,
        "at_once": at_once,
        "beside_refused": refused,
        "versions": len(wrote),
        "numbers_twice": len(wrote) - len({*wrote}),
        "whole": whole,
        "stale_s": round(staleness(logs), 2),
        "after": refit(tasks[1]).version,
        "failed": failed,
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
