"""Audits through the teacher's batch API, which read the audited rows from the store."""

import asyncio
from pathlib import Path

import pytest

from tests.server.worlds import RED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until_async
from tracer_serve.config.load import Task
from tracer_serve.errors import SpecError
from tracer_serve.serving.batch_auditor import BatchAuditor
from tracer_serve.serving.runtime import Runtime, running

PRICE = {"prompt_per_1m": 1.0, "completion_per_1m": 1.0}


def make(folder: Path, stub: StubLLM) -> Task:
    teacher = {"type": "openai", "base_url": stub.url, "model": "stub-1", "price": PRICE}
    task = make_task(folder, stub, teacher=teacher, traces={"audit_rate": 1.0, "audit_via": "batch"})
    make_version(task)
    return task


def auditor(runtime: Runtime) -> BatchAuditor:
    return BatchAuditor(runtime.task, runtime.store, runtime.router.audits, settle_s=0.0)


@pytest.mark.anyio
async def test_audited_rows_are_asked_in_one_batch_at_half_price(tmp_path: Path, stub_llm: StubLLM) -> None:
    """No call is made while requests are answered; the batch labels each row once and tells the monitor."""
    stub_llm.batches.looks = 1
    async with serving(make(tmp_path, stub_llm)) as (client, runtime):
        answers = (await client.post("/v1/classify", json={"input": RED})).json()["data"]
        handled = sum(answer["decision"] == "handled" for answer in answers)
        calls = stub_llm.count
        await until_async(lambda: runtime.store.tallies.counts().total.rows == len(RED))
        stub_llm.labels = {**stub_llm.labels, RED[0]: "blue"}
        assert await auditor(runtime).round() == handled
        await until_async(lambda: not runtime.store.traces.to_audit("", "", 100))
        assert await auditor(runtime).round() == 0
        audits = [row for row in runtime.store.traces.labelled() if row.label_source == "audit"]
        loaded = runtime.live.loaded
        assert loaded is not None
        await asyncio.to_thread(runtime.watch.refresh)
        assert (runtime.watch.monitor(loaded).seen, runtime.watch.monitor(loaded).agreements) == (handled, handled - 1)
    assert calls == len(answers) - handled
    assert stub_llm.batches.submitted == [handled]
    assert len(audits) == handled
    for row in audits:
        assert row.cost == pytest.approx(sum(row.usage.values()) / 2e6)


@pytest.mark.anyio
async def test_an_interrupted_round_asks_nothing_twice(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Stopped while its batch is under way; later rows wait for the next round."""
    stub_llm.batches.looks = 10_000
    async with serving(make(tmp_path, stub_llm)) as (client, runtime):
        await client.post("/v1/classify", json={"input": RED[:4]})
        await until_async(lambda: runtime.store.tallies.counts().total.rows == 4)
        first = len(runtime.store.traces.to_audit("", "", 100))
        work = asyncio.create_task(auditor(runtime).round())
        await until_async(lambda: any(batch["looks"] for batch in stub_llm.batches.made.values()))
        work.cancel()
        await asyncio.wait([work])
        await client.post("/v1/classify", json={"input": RED[4:8]})
        await until_async(lambda: runtime.store.tallies.counts().total.rows == 8)
        stub_llm.batches.looks = 0
        assert await auditor(runtime).round() == first
        assert stub_llm.batches.submitted == [first]
        assert await auditor(runtime).round() > 0
        assert stub_llm.batches.answered.total() == len(stub_llm.batches.answered) == sum(stub_llm.batches.submitted)


@pytest.mark.anyio
async def test_the_batch_api_of_a_teacher_without_one_is_refused_at_the_start(
    tmp_path: Path, stub_llm: StubLLM
) -> None:
    """Azure has its own; the error names the teacher's block."""
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "api_version": "2025-01-01"}
    task = make_task(tmp_path, stub_llm, teacher=teacher, traces={"audit_via": "batch"})
    with pytest.raises(SpecError, match="no batch API"):
        async with running(task):
            pass
    with pytest.raises(SpecError, match="redact"):
        make_task(tmp_path, stub_llm, traces={"audit_via": "batch", "redact": ["pii"]})
