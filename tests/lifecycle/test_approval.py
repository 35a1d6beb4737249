"""Certified versions that wait until a person accepts them."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.server.worlds import HANDLED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tests.support.tiny import tiny_task
from tests.support.waiting import until_async
from tracer_serve.cli.main import main
from tracer_serve.lifecycle.approval import await_approval
from tracer_serve.lifecycle.refit import refit
from tracer_serve.storage.versions.opening import open_versions, store_of

ADMIN = {"authorization": "Bearer a-secret-of-the-operator"}


def test_a_certified_version_serves_only_once_it_is_approved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refit leaves no version current, the command serves the one that waits, and the log says who did what."""
    task = tiny_task(tmp_path, versions={"approve": True})
    versions = open_versions(task)
    outcome = refit(task)
    assert (outcome.certificate.certified, outcome.activated, outcome.waits) == (True, False, True)
    assert (outcome.version, versions.current()) == (1, None)
    assert main(["versions", str(task.file), "--approve", "2"]) == 1
    assert "version 1 waits, not version 2" in capsys.readouterr().err
    assert main(["versions", str(task.file), "--approve", "1", "--json"]) == 0
    assert [(v["serving"], v["waits"]) for v in json.loads(capsys.readouterr().out)] == [(True, False)]
    assert versions.current() == 1
    with closing(store_of(task)) as store:
        acts = [(entry.action, entry.target, entry.outcome) for entry in store.audit_log.recent()]
    assert acts == [("approve", "1", "done"), ("approve", "2", "failed")]
    assert main(["versions", str(task.file), "--approve", "1"]) == 1


def test_without_a_person_the_version_before_serves_on(tmp_path: Path) -> None:
    """A second certified version takes the place of the one that waits, not of the one that serves."""
    task = tiny_task(tmp_path)
    assert refit(task).activated
    asking = tiny_task(tmp_path, versions={"approve": True})
    assert [refit(asking).waits for _ in range(2)] == [True, True]
    with closing(store_of(asking)) as store:
        assert store.values.get("versions.waiting")["version"] == 3
    assert open_versions(asking).current() == 1


@pytest.mark.anyio
async def test_the_admin_route_approves(tmp_path: Path, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the admin key it is refused; with it the version serves, and a second approval is a 404."""
    monkeypatch.setenv("TRACER_SERVE_ADMIN_KEY", ADMIN["authorization"].removeprefix("Bearer "))
    task = make_task(tmp_path, stub_llm, versions={"approve": True})
    number = make_version(task, activate=False)
    async with serving(task) as (client, runtime):
        await_approval(runtime.store, number)
        waiting = (await client.get("/healthz")).json()["waiting"]
        refused = await client.post("/admin/approve", json={})
        before = await client.post("/v1/classify", json={"input": HANDLED})
        done = await client.post("/admin/approve", json={"version": number}, headers=ADMIN)
        again = await client.post("/admin/approve", json={}, headers=ADMIN)
        await until_async(lambda: runtime.live.loaded)
        after = await client.post("/v1/classify", json={"input": HANDLED})
        log = (await client.get("/admin/log", headers=ADMIN)).json()["data"]
    assert waiting["version"] == number
    assert refused.status_code == 401
    assert (done.status_code, done.json()) == (200, {"version": number, "before": None})
    assert again.status_code == 404
    decisions = [answer.json()["data"][0]["decision"] for answer in (before, after)]
    assert decisions == ["deferred", "handled"]
    assert [(entry["action"], entry["outcome"]) for entry in log] == [("approve", "failed"), ("approve", "done")]
