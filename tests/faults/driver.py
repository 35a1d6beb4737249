"""Kills processes with SIGKILL at random moments, and looks after each kill at what is left.

    python -m tests.faults.driver FOLDER SEED KILLS

Everything is imported once and each process is a fork, so that a kill costs no start-up. One process writes rows as a
service does, and says which are on disk; beside it another refits, imports a file, swaps versions, answers requests
or saves observed calls until it is killed.
Then a third one starts everything as a service would, answers, and counts. Prints one JSON line of what was seen.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.tiny import LABELS, TEXTS, rows_now, tiny_task, write_rows
from tracer_serve.config.load import Task
from tracer_serve.errors import BusyError
from tracer_serve.forms.calls import parse
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.forms.prompt_group import Observed
from tracer_serve.lifecycle.refit import refit
from tracer_serve.serving.runtime import running
from tracer_serve.storage.importers import import_file
from tracer_serve.storage.observed import ObservedCalls
from tracer_serve.storage.traces.lease_owner import LEASE
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.types import Decision

_LONGEST_S = {"refit": 1.0, "import": 0.15, "swap": 0.05, "worker": 0.5, "discovery": 0.1}
_FILE_ROWS = 200


def fork(work: Callable[[], object]) -> int:
    """Run in a child; an error there is told and ends in exit code 1."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  a child may not return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def load(task: Task, told: int) -> None:
    """Write rows, one in five labelled, and tell each id once it is on disk."""
    store = store_of(task)
    while True:
        rows = [*rows_now(4, decision="handled", teacher_label=None, label_source=None), *rows_now(1)]
        store.traces.add(rows)
        os.write(told, b"".join(row.id.encode() + b"\n" for row in rows))  # under 4 kB, so whole or not at all
        time.sleep(0.01)


def swap(task: Task) -> None:
    """Roll back and forth as fast as it goes."""
    versions = open_versions(task)
    while True:
        for number in versions.numbers():
            versions.activate(number)


def take_in(task: Task, number: int) -> None:
    """Import a file, again and again: only the first time adds rows."""
    store = store_of(task)
    while True:
        import_file(store, task.base / f"more-{number}.jsonl")


def work(task: Task, told: int) -> None:
    """Answer requests as a worker does, and tell the ids of the rows that were acknowledged."""

    async def run() -> None:
        async with running(task, schedule=False) as runtime:
            for number in itertools.count():
                await runtime.router.route([TEXTS[number % len(TEXTS)]])
                rows = rows_now(4)
                written = await asyncio.gather(*(runtime.writer.commit(row) for row in rows))
                acknowledged = [row.id for row, is_written in zip(rows, written, strict=True) if is_written]
                os.write(told, b"".join(trace_id.encode() + b"\n" for trace_id in acknowledged))

    asyncio.run(run())


def observe(task: Task) -> None:
    """Save the calls that a proxy observes, more each time, and note how many are on disk."""
    noted = os.open(task.base / "observed.count", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store, groups = ObservedCalls(task.base / "observed.db"), CallGroups()
    if store.file.exists():
        store.load_into(groups)
    for number in itertools.count():
        said = f"Which colour is this? Answer with its name and nothing else.\nText: {number} {TEXTS[number % 96]}"
        body = {"model": "m", "messages": [{"role": "user", "content": said}]}
        groups.add(Observed(parse(body), LABELS[number % 96], at=time.time()))
        if number % 20 == 0:
            store.save(groups, days=7.0)
            os.write(noted, f"{groups.totals.calls}\n".encode())


def check(task: Task, acknowledged: set[str], files: int) -> None:
    """Start what is left as a service does, and look at everything."""
    store = store_of(task)
    columns = store.traces.columns(labelled_only=False)
    there = {trace_id.decode() for trace_id in columns.ids}
    assert acknowledged <= there, f"{len(acknowledged - there)} acknowledged rows are lost"
    counts = store.tallies.counts()
    assert counts.total.rows == len(there), "the counts are wrong"
    imported = sum(1 for text in columns.texts if str(text).startswith("more"))
    assert imported % _FILE_ROWS == 0, "half an import"
    assert imported <= files * _FILE_ROWS, "a file twice"
    for number in open_versions(task).numbers():
        open_versions(task).verify(number)
    store.close()
    calls, groups = ObservedCalls(task.base / "observed.db"), CallGroups()
    if calls.file.exists():
        calls.load_into(groups)
        saved = max(map(int, (task.base / "observed.count").read_text().split()), default=0)
        assert groups.totals.calls >= saved, "observed calls are lost"
    asyncio.run(answer(task))


async def answer(task: Task) -> None:
    """Serve, and ask about a text that the teacher knows."""
    async with running(task, schedule=False) as runtime:
        assert runtime.live.loaded is not None, "no version loads"
        assert runtime.problems() == [], runtime.problems()
        (result,) = await runtime.router.route([TEXTS[0]])
        assert isinstance(result, Decision), result
        assert result.label == LABELS[0]


def trial(task: Task, rng: random.Random, number: int, acknowledged: set[str]) -> str:
    """Kill once and check; return what was killed, and whether it had ended before."""
    kind = rng.choice(["refit", "refit", "import", "swap", "worker", "discovery"])
    texts = [f"more {number} {text}" for text in (TEXTS * 3)[:_FILE_ROWS]]
    write_rows(task.base / f"more-{number}.jsonl", texts, (LABELS * 3)[:_FILE_ROWS])
    reading, told = os.pipe()
    writer = fork(lambda: load(task, told))
    works: dict[str, Callable[[], Any]] = {
        "refit": lambda: refit(task),
        "swap": lambda: swap(task),
        "import": lambda: take_in(task, number),
        "worker": lambda: work(task, told),
        "discovery": lambda: observe(task),
    }
    victim = fork(works[kind])
    os.close(told)
    time.sleep(rng.uniform(0.0, _LONGEST_S[kind]))
    for pid in rng.sample([victim, writer], 2):
        os.kill(pid, signal.SIGKILL)
    ended = os.waitpid(victim, 0)[1]
    if not os.WIFSIGNALED(os.waitpid(writer, 0)[1]):
        raise SystemExit(f"trial {number}: the writer failed by itself, see above")
    with os.fdopen(reading) as lines:
        acknowledged.update(line.strip() for line in lines if line.endswith("\n"))
    if os.waitpid(fork(lambda: check(task, acknowledged, number + 1)), 0)[1]:
        raise SystemExit(f"trial {number}: after a kill of {kind} something is wrong, see above")
    return f"{kind} {'killed' if os.WIFSIGNALED(ended) else 'ended'}"


def main() -> None:
    """Run the trials, then one refit: no lease of a killed process may stand in its way."""
    folder, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    task, rng = tiny_task(folder, versions={"keep": 3}), random.Random(seed)
    refit(task)
    acknowledged: set[str] = set()
    seen = Counter(trial(task, rng, number, acknowledged) for number in range(kills))
    store = store_of(task)
    holder = store.leases.holder(LEASE)
    store.close()
    try:
        version = refit(task).version
    except BusyError as error:
        raise SystemExit(f"the lease of a dead process blocks: {error}") from error
    print(json.dumps({"seen": seen, "acknowledged": len(acknowledged), "version": version, "left": holder is not None}))  # noqa: T201


if __name__ == "__main__":
    main()
