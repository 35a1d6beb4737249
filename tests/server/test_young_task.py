"""A task without a version is healthy: the teacher answers, and /healthz says why there is no version."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.server.worlds import HANDLED
from tests.support.disks import small_disk
from tests.support.server_process import answering, bare, free_port
from tests.support.tiny import rows_now, tiny_task
from tests.support.waiting import until_async
from tracer_serve.cli.commands._prepare import prepare
from tracer_serve.cli.commands._serving import begin
from tracer_serve.config.load import Task
from tracer_serve.lifecycle.refit import refit
from tracer_serve.lifecycle.refit_history import last_refit
from tracer_serve.serving.runtime import running
from tracer_serve.storage.traces import open_store
from tracer_serve.storage.versions.digests import DIGESTS
from tracer_serve.storage.versions.manifest import checksums
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.storage.versions.store import VersionStore

MakeTask = Callable[..., Task]


def test_a_task_with_a_few_labelled_rows_restarts_and_says_why_there_is_no_version(
    task: MakeTask, tmp_path: Path
) -> None:
    """Attack S3: with 15 labelled rows the server starts, the teacher answers, and /healthz names what is missing."""
    port = free_port()
    spec = task(server={"port": port})
    store = open_store(spec.state / "traces.db", "colours")
    store.traces.add([replace(row, task="colours") for row in rows_now(15)])
    store.close()
    words = [sys.executable, "-m", "tracer_serve", str(spec.file)]
    env = bare(tmp_path / "home") | {"PYTHONPATH": os.environ.get("PYTHONPATH", str(Path.cwd()))}
    with answering(words, port, tmp_path, env) as client:
        answer = client.post("/v1/classify", json={"input": HANDLED}).json()["data"][0]
        health = client.get("/healthz").json()
    printed = " ".join((tmp_path / f"{port}.log").read_text().split())
    assert (answer["label"], answer["decision"], answer["reason"]) == ("red", "deferred", "no_version")
    assert (health["status"], health["version"], health["gate"]["reason"]) == ("ok", None, "no_version")
    assert health["last_refit"]["outcome"] == "failed"
    assert "15 labelled traces" in health["last_refit"]["message"]
    assert health["gate"]["repair"]["rows"] == 16
    assert "colours: no version yet: " in printed
    assert "every request goes to the teacher" in printed


@pytest.mark.parametrize("rows", [1, 19])
def test_any_number_of_rows_that_is_too_small_for_a_fit_starts(tmp_path: Path, rows: int) -> None:
    """Attack S3, at both ends: 1 and 19 rows are too few for 10 folds, and neither ends the start."""
    spec = tiny_task(tmp_path, traces={}, fit={"folds": 10})
    store = store_of(spec)
    store.traces.add(rows_now(rows))
    begin(spec, asdict(prepare(spec)))
    found: Any = last_refit(store, under_way=False)
    store.close()
    assert (found["outcome"], found["trigger"]) == ("failed", "start")
    assert "traces" in found["message"]


def test_a_full_disk_at_the_first_fit_does_not_end_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attack S3: where version 1 cannot be written, the task is served by its teacher, and the reason is printed."""
    with small_disk(tmp_path / "disk", 4, lazy=True) as disk:
        spec = tiny_task(tmp_path, state=str(tmp_path / "state"), versions={"url": str(disk)})
        (disk / "ballast").write_bytes(bytes(4 * 2**20 - 16_384))
        begin(spec, asdict(prepare(spec)))
        printed = " ".join(capsys.readouterr().out.split())
        assert open_versions(spec).current() is None
    assert "tiny: no version yet: " in printed
    assert "space" in printed


@pytest.mark.anyio
@pytest.mark.parametrize("files", [("model/policy.json",), ("model/policy.json", "certificate.json")])
async def test_a_version_of_another_release_is_replaced_by_a_refit(tmp_path: Path, files: Sequence[str]) -> None:
    """Where the files of the current version lack what this release reads, a refit writes a version that serves."""
    spec = tiny_task(tmp_path)
    refit(spec)
    _write_as_another_release(open_versions(spec), 1, files)
    with closing(store_of(spec)) as store:
        store.values.put(DIGESTS, {"1": open_versions(spec).manifest(1).digest()})
    begin(spec, asdict(prepare(spec)))
    async with running(spec) as runtime:
        await until_async(lambda: runtime.live.loaded is not None)
        last: Any = last_refit(runtime.store, under_way=False)
        assert runtime.live.loaded is not None
        assert (runtime.live.loaded.number, last["trigger"], runtime.gate.open) == (2, "unreadable", True)


def _write_as_another_release(versions: VersionStore, number: int, files: Sequence[str]) -> None:
    """Drop every fact but one from JSON files of a version, and write the manifest for what is left."""
    folder, manifest = versions.folder(number), versions.manifest(number)
    for file in files:
        facts = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(dict([*facts.items()][:1])), encoding="utf-8")
    (folder / "manifest.json").unlink()
    changed = replace(manifest, files=checksums(folder))
    (folder / "manifest.json").write_text(changed.as_json(), encoding="utf-8")
