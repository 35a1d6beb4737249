"""Everything beside classify: health, metrics, documents, pages, admin."""

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tracer_serve.config.load import Task
from tracer_serve.config.server import ADMIN_KEY as KEY
from tracer_serve.lifecycle.triggers import REQUEST
from tracer_serve.server.openapi import openapi
from tracer_serve.server.routes.response_models import ErrorBody

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
ADMIN = {"authorization": "Bearer an-operators-own-key"}


async def test_a_service_without_a_version_is_ready(task: MakeTask) -> None:
    """Deferring everything counts as answering."""
    async with serving(task()) as (client, _):
        assert (await client.get("/livez")).status_code == 200
        ready = (await client.get("/readyz")).json()
        assert ready == {"status": "ready", "version": None, "problems": [], "yaml_changed": False}
        assert (await client.get("/healthz")).json()["status"] == "ok"


async def test_health_names_version_and_certificate(task: MakeTask) -> None:
    """The details that a person wants first are there."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, _):
        version = (await client.get("/healthz")).json()["version"]
    assert (version["number"], version["certified"], version["coverage"]) == (1, True, 0.8)


async def test_nothing_certified_is_no_coverage_and_an_average_is_no_bound(task: MakeTask) -> None:
    """Metrics and health state coverage and bound only as far as they are certified; a promise is put in words."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        found = loaded.policy.certificate
        for certificate, coverage, words in (
            (replace(found, certified=False, reason="coverage"), 0.0, ""),
            (replace(found, guarantee="overall", delta=math.nan), 0.8, "On average over versions"),
        ):
            runtime.live.loaded = replace(loaded, policy=replace(loaded.policy, certificate=certificate))
            version = (await client.get("/healthz")).json()["version"]
            assert (version["coverage"], version["lower_bound"]) == (coverage, None)
            assert (version["promise"] or "").startswith(words)
            lines = (await client.get("/metrics")).text.splitlines()
            assert f'tracer_coverage_ratio{{task="colours"}} {coverage}' in lines
            assert not [line for line in lines if line.startswith("tracer_agreement_lower_bound{")]


async def test_metrics_count_what_happened_and_no_text_becomes_a_label(task: MakeTask) -> None:
    """The series of the conventions are there; paths and texts that clients make up create none."""
    spec = task(traces={"audit_rate": 1.0})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        await client.post("/v1/classify", json={"input": [HANDLED, DEFERRED, HANDLED]})
        await runtime.router.audits.close(10)
        before = (await client.get("/metrics")).text
        for i in range(5):
            await client.get(f"/made-up/{i}")
            await client.post("/v1/classify", json={"input": f"made up {i}", "model": "colours"})
        after = (await client.get("/metrics")).text
    for line in (
        'tracer_requests_total{decision="handled",task="colours"} 2.0',
        'tracer_requests_total{decision="deferred",task="colours"} 1.0',
        'tracer_audit_total{agree="true",task="colours"} 2.0',
        'tracer_request_duration_seconds_count{stage="total",task="colours"} 1.0',
        'tracer_coverage_ratio{task="colours"} 0.8',
        'tracer_agreement_lower_bound{task="colours"} 0.96',
        'tracer_agreement_target{task="colours"} 0.9',
    ):
        assert line in before
    assert re.search(
        r'tracer_policy_info\{embedder="ngrams-[0-9a-f]+",task="colours",teacher="[0-9a-f]+",version="1"\} 1.0', before
    )
    names = [{line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"} for text in (before, after)]
    # the teacher answers nonsense about texts it does not know: one series with a bounded reason
    assert names[1] - names[0] <= {'tracer_teacher_errors_total{reason="unknown_label",task="colours"}'}


async def test_models_lists_the_task(task: MakeTask) -> None:
    """An OpenAI client finds the task as a model."""
    async with serving(task()) as (client, _):
        body = (await client.get("/v1/models")).json()
    assert [(m["id"], m["object"]) for m in body["data"]] == [("colours", "model")]


async def test_every_route_is_documented_and_every_document_has_a_route(task: MakeTask) -> None:
    """/docs.json and the routes agree, and every reference in it resolves."""
    async with serving(task()) as (client, _):
        documented = (await client.get("/docs.json")).json()
        paths = (await client.get("/schema.json")).json()["paths"]
    assert documented == openapi()
    assert set(documented["paths"]) == {path.replace(":int", "").replace(":path", "") for path in paths}
    schemas = documented["components"]["schemas"]
    assert {ref.rpartition("/")[2] for ref in _references(documented)} <= set(schemas)


async def test_the_page_of_the_api_needs_nothing_from_elsewhere(task: MakeTask) -> None:
    """Every operation is on /docs, which runs no script and names no other host."""
    async with serving(task()) as (client, _):
        answer = await client.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'none'")
    assert not re.findall(r"(?:src|href)=\"(?!data:|docs\.json)", answer.text)
    assert "http" not in re.sub("[Hh]ttp-equiv|HTTP", "", answer.text)
    for path, operations in openapi()["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in answer.text


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()


async def test_unknown_paths_and_methods_get_error_objects(task: MakeTask) -> None:
    """404 and 405 look like every other error."""
    async with serving(task()) as (client, _):
        answers = [
            await client.get("/nope"),
            await client.get("/v1/classify"),
            await client.get("/versions/9/report.html"),
        ]
    assert [a.status_code for a in answers] == [404, 405, 404]
    assert [ErrorBody.model_validate(a.json()).error.code for a in answers] == [
        "not_found",
        "method_not_allowed",
        "not_found",
    ]


async def test_a_bug_of_ours_shows_nothing_of_the_inside(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is a 500 with an error object, without a traceback or its message."""
    spec = task()
    async with serving(spec) as (client, runtime):

        async def bug(*_: Any) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(type(runtime.router), "route", bug)
        answer = await client.post("/v1/classify", json={"input": "a"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert ErrorBody.model_validate(answer.json()).error.type == "server_error"


async def test_pages_load_nothing_from_elsewhere(task: MakeTask) -> None:
    """The dashboard may run its own scripts and ask its own server; a report without a policy may run none."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, _):
        page, report = await client.get("/"), await client.get("/versions/1/report.html")
    assert report.text == "<!doctype html><title>report</title>"
    page_policy, report_policy = (answer.headers["content-security-policy"] for answer in (page, report))
    assert re.match(
        "default-src 'none'; script-src 'sha256-[^']+' 'sha256-[^']+'; style-src 'sha256-[^']+';", page_policy
    )
    assert "connect-src 'self'; base-uri 'none'; form-action 'none'" in page_policy
    assert report_policy.startswith("default-src 'none'; style-src ")
    for answer in (page, report):
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)


async def test_admin_routes_are_closed_without_a_key(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configured key nobody is the operator; the answer says why."""
    monkeypatch.delenv(KEY, raising=False)
    async with serving(task()) as (client, _):
        answers = [await client.post(f"/admin/{route}", headers=ADMIN, json={}) for route in ("refit", "rollback")]
    assert [a.status_code for a in answers] == [403, 403]
    assert KEY in answers[0].json()["error"]["message"]


async def test_admin_routes_want_the_key(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is 401, a wrong one 403, the right one is let in and leaves a request for the schedule."""
    monkeypatch.setenv(KEY, "an-operators-own-key")
    async with serving(task()) as (client, runtime):
        wrong = {"authorization": "Bearer nope"}
        answers = [await client.post("/admin/refit", headers=headers) for headers in ({}, wrong, ADMIN)]
        assert runtime.store.values.get(REQUEST) is not None
    assert [a.status_code for a in answers] == [401, 403, 202]


async def test_rollback_serves_an_earlier_version(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number or to the last certified one before; a version that is not there is a 404 with what is."""
    monkeypatch.setenv(KEY, "an-operators-own-key")
    spec = task()
    for certified in (True, False, True):
        make_version(spec, certified=certified)
    async with serving(spec) as (client, runtime):
        back = await client.post("/admin/rollback", headers=ADMIN, json={})
        end = time.monotonic() + 10
        while (loaded := runtime.live.loaded) and loaded.number != 1 and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        missing = await client.post("/admin/rollback", headers=ADMIN, json={"version": 9})
        oldest = await client.post("/admin/rollback", headers=ADMIN, json={})
    assert back.json() == {"version": 1, "before": 3}
    assert loaded is not None
    assert loaded.number == 1
    assert missing.status_code == 404
    assert "1, 2, 3" in missing.json()["error"]["message"]
    assert oldest.status_code == 404


async def test_a_report_is_served_under_the_policy_that_it_carries(task: MakeTask) -> None:
    """Its own scripts may run, by hash, so that its charts are drawn."""
    spec, policy = task(), "default-src 'none'; script-src 'sha256-abc'"
    make_version(spec, report=f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    async with serving(spec) as (client, _):
        answer = await client.get("/versions/1/report.html")
    assert answer.headers["content-security-policy"] == f"{policy}; frame-ancestors 'none'"
