"""Two API processes with nothing in common but Postgres and S3 are one service."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.tiny import TEXTS, tiny_task
from tests.support.waiting import until_async
from tracer_serve.config.load import Task
from tracer_serve.lifecycle.refit import refit
from tracer_serve.serving.runtime import Runtime, running
from tracer_serve.storage.versions import open_versions
from tracer_serve.storage.versions.store import all_manifests
from tracer_serve.types import Decision

pytestmark = pytest.mark.anyio


@pytest.fixture
def tasks(tmp_path: Path, postgres_url: str, s3: str) -> tuple[Task, Task]:
    """The same task on two machines."""
    name = f"t{uuid4().hex}"
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    traces = {"import": ["rows.jsonl"], "url": postgres_url, "audit_rate": 0.2}
    one, other = (tiny_task(folder, name=name, traces=traces, versions={"url": s3}) for folder in folders)
    return one, other


def serving(*runtimes: Runtime) -> set[int | None]:
    return {loaded.number if (loaded := runtime.live.loaded) else None for runtime in runtimes}


async def test_refit_swap_alarm_and_rollback_are_seen_by_both(tasks: tuple[Task, Task]) -> None:
    """What one does both serve: a first version, a second, the gate that one's audits closed, and a rollback."""
    async with running(tasks[0], schedule=False) as one, running(tasks[1], schedule=False) as other:
        assert serving(one, other) == {None}
        for number in (1, 2):
            assert (await asyncio.to_thread(refit, tasks[number - 1])).version == number
            await until_async(lambda number=number: serving(one, other) == {number})  # type: ignore[misc]
        for runtime in (one, other):
            (result,) = await runtime.router.route([TEXTS[0]])
            assert isinstance(result, Decision)
            assert (result.kind, result.version) == ("handled", 2)
        for _ in range(40):
            one.watch.note_audit(2, agree=False)
        await until_async(lambda: one.gate.void and other.gate.void)
        assert one.gate == other.gate
        open_versions(tasks[1], other.store).activate(1)
        await until_async(lambda: serving(one, other) == {1})
        assert [m.version for m in all_manifests(one.versions)] == [1, 2]
        assert one.problems() == other.problems()
    assert not {path.name for path in (tasks[0].state / "versions").iterdir()} - {"000001", "000002"}
