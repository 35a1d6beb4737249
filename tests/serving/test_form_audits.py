"""Forms that share a certificate are watched each."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.server.worlds import HANDLED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tests.support.tiny import tiny_task
from tracer_serve.gate.certificate import Certificate
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.server.dashboard.status import status_of
from tracer_serve.serving.form_audits import FormAudits
from tracer_serve.storage.traces import open_store

CERTIFICATE = Certificate(
    certified=True, reason="certified", alpha=0.9, delta=0.05, mode="strict", rows=100, n=80, agreements=80,
    lower_bound=0.96, threshold=0.8, coverage=0.8,
)  # fmt: skip
VERSION = CertifiedVersion(7, CERTIFICATE, "teacher", "")


def test_a_form_whose_audits_disagree_is_suspended_in_every_process(tmp_path: Path) -> None:
    """Another form is not; the suspension lasts over versions, and ends with the promise that it belongs to."""
    gate = tiny_task(tmp_path).spec.gate
    store = open_store(tmp_path / "traces.db", "tiny")
    first, second = FormAudits(gate), FormAudits(gate)
    for form, agree in [("app", False), ("native", True)] * 6:
        (first if agree else second).note(form, agree)
    for _ in range(2):
        first.exchange(store, VERSION)
        second.exchange(store, VERSION)
    assert first.suspended == second.suspended == {"app"}
    assert (first.states["native"].seen, first.states["native"].agreements) == (6, 6)
    second.exchange(store, replace(VERSION, number=8))
    assert second.suspended == {"app"}
    second.exchange(store, replace(VERSION, number=9, after="later"))
    assert second.suspended == frozenset()
    store.close()


@pytest.mark.anyio
async def test_calls_of_a_suspended_form_go_upstream(tmp_path: Path, stub_llm: StubLLM) -> None:
    """With the reason; direct calls are handled on, and the dashboard says which form it is."""
    form = {"name": "app", "prompt": "Which colour is it not? {text}", "same_as": "teacher"}
    spec = make_task(tmp_path, stub_llm, forms=[form])
    make_version(spec)
    body = {"model": "stub-1", "messages": [{"role": "user", "content": f"Which colour is it not? {HANDLED}"}]}
    async with serving(spec) as (client, runtime):
        before = await client.post("/v1/chat/completions", json=body)
        assert runtime.live.loaded is not None
        (app,) = [known.fingerprint for known in runtime.forms if known.name == "app"]
        for _ in range(8):
            runtime.watch.forms.note(app, agree=False)
        runtime.watch.forms.exchange(runtime.store, runtime.live.loaded.certified)
        after = await client.post("/v1/chat/completions", json=body)
        direct = await client.post("/v1/classify", json={"input": HANDLED})
        told = status_of(runtime)["promise"]["forms"]
    assert before.headers["x-tracer-decision"] == direct.headers["x-tracer-decision"] == "handled"
    assert (after.headers["x-tracer-decision"], after.headers["x-tracer-reason"]) == ("deferred", "form_disagrees")
    assert told == [{"form": "app", "audits": 8, "agreements": 0, "agreement": 0.0, "suspended": True}]
