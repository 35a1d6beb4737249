"""The operations guide's commands for backups, run while a writer goes on; what comes back serves."""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tests.project.test_operations import ROOT
from tests.storage.traces.make import process
from tests.support.tiny import LABELS, TEXTS, rows_now, tiny_task
from tracer_serve.config.load import Task
from tracer_serve.lifecycle.refit import refit
from tracer_serve.serving.runtime import running
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.types import Decision

pytestmark = pytest.mark.slow

_WRITER = """
import sys
from tests.support.tiny import rows_now
from tracer_serve.storage.traces import open_store
store = open_store(sys.argv[1], "tiny")
while True:
    rows = rows_now(20)
    store.traces.add(rows)
    store.traces.set_label(rows[0].id, "blue", "human")
    print(*(row.id for row in rows), flush=True)
"""
GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = [
    words
    for block in re.findall(r"```console\n(.+?)```", GUIDE.split("## Backups")[1].split("\n## ")[0], re.DOTALL)
    for words in re.findall(r"^\$ (.+?)(?:  +#.*)?$", block, re.MULTILINE)
]


@contextmanager
def writing(location: Path | str) -> Iterator[Callable[[], list[str]]]:
    """Let a process write rows; yield what waits for the next that are on disk and returns their ids."""
    writer = process(_WRITER, location)

    def written() -> list[str]:
        assert writer.stdout is not None
        line = writer.stdout.readline()
        assert line, writer.communicate()[1]
        return line.split()

    try:
        yield written
    finally:
        writer.kill()
        writer.communicate()


def command(program: str, folder: Path, **variables: str) -> None:
    """Run the guide's command for a program as a person would: in a folder, with its variables set."""
    (words,) = (words for words in COMMANDS if shlex.split(words)[0] == program)
    run, env = ["/bin/sh", "-ec", words], os.environ | variables
    done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def whole(task: Task, ids: list[str]) -> None:
    """Check that a restored task has the rows, that its counts are theirs, and that it answers by its version."""
    store = store_of(task)
    labelled = {row.id for row in store.traces.labelled()}
    assert {*ids} <= labelled
    assert (store.tallies.counts().total.rows, store.tallies.counts().total.labelled) == (
        store.traces.count(),
        len(labelled),
    )
    assert store.tallies.counts().by_source["human"] == sum(
        row.label_source == "human" for row in store.traces.labelled()
    )
    assert [entry.outcome for entry in store.refits.recent()] == ["certified"]
    store.close()

    async def answer() -> None:
        async with running(task, schedule=False) as runtime:
            assert runtime.problems() == []
            (result,) = await runtime.router.route([TEXTS[0]])
            assert isinstance(result, Decision)
            assert (result.label, result.version) == (LABELS[0], 1)

    asyncio.run(answer())
    assert refit(task).version == 2


def test_a_sqlite_store_is_copied_while_it_is_written(tmp_path: Path) -> None:
    """The copy holds every row that was on disk before it began, whole; with the versions it serves and refits."""
    if shutil.which("sqlite3") is None:
        pytest.skip("no sqlite3 here: apt-get install sqlite3")
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    task = tiny_task(tmp_path / "before")
    refit(task)
    store = store_of(task)
    # enough for writes to come in the middle
    store.traces.add(rows_now(30_000, decision="handled", teacher_label=None, label_source=None))
    store.close()
    with writing(task.state / "traces.db") as written:
        ids = [*written(), *written()]
        command("sqlite3", task.state)
        written()
    restored = tiny_task(tmp_path / "after")
    restored.state.mkdir()
    shutil.move(task.state / "copy.db", restored.state / "traces.db")
    shutil.copytree(task.state / "versions", restored.state / "versions")
    whole(restored, ids)


def test_a_postgres_store_is_dumped_while_it_is_written_and_restored(tmp_path: Path, postgres_url: str) -> None:
    """The dump restores into an empty database, with every row that was on disk before it began, and serves."""
    if shutil.which("pg_dump") is None:
        pytest.skip("no pg_dump here: apt-get install postgresql-client")
    urls = {name: postgres_url.replace("/postgres", f"/{name}") for name in ("before", "after")}
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in urls:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    for name in urls:
        (tmp_path / name).mkdir()
    traces = {"import": ["rows.jsonl"], "url": urls["before"]}
    task = tiny_task(tmp_path / "before", traces=traces)
    refit(task)
    with writing(urls["before"]) as written:
        ids = [*written(), *written()]
        command("pg_dump", tmp_path, TRACES_URL=urls["before"])
        written()
    command("pg_restore", tmp_path, EMPTY_URL=urls["after"])
    restored = tiny_task(tmp_path / "after", traces=traces | {"url": urls["after"]})
    shutil.copytree(task.state / "versions", restored.state / "versions")
    whole(restored, ids)
    assert open_versions(restored).numbers() == [1, 2]
