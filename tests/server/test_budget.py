"""The teacher's daily budget: its answers' cost, counted by all workers together."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.worlds import DEFERRED, HANDLED, make_task, make_version, serving, unknown
from tests.support.server_process import answering, bare, free_port, workers_at
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until_async
from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._params import Budget
from tracer_serve.components.teachers._spend_limit import SPENT, PaidCall, SpendLimit
from tracer_serve.config.load import Task
from tracer_serve.errors import BudgetError, PluginError
from tracer_serve.serving.metrics import render
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces import TraceStore, open_store

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
PRICE = {"currency": "EUR", "prompt_per_1m": 1000.0, "completion_per_1m": 1000.0}
CHAT = {"model": "stub-1", "messages": [{"role": "user", "content": DEFERRED}]}


def teacher(stub: StubLLM, per_day: float, **budget: Any) -> dict[str, Any]:
    """Return the YAML of a teacher whose tokens cost 0.001 EUR each."""
    limits = {"retries": 0, "deadline_s": 20.0, "cache": {"size": 0}, "budget": {"per_day": per_day, **budget}}
    return {"type": "openai", "base_url": stub.url, "model": "stub-1", "price": PRICE, **limits}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    """A store of its own."""
    opened = open_store(tmp_path / "traces.db", "colours")
    yield opened
    opened.close()


async def test_a_spent_budget_refuses_in_the_shape_of_each_api(task: MakeTask, stub_llm: StubLLM) -> None:
    """Without a version, and so with every text deferred: 429 until midnight UTC, while /healthz, metrics say so."""
    async with serving(task(teacher=teacher(stub_llm, 0.001))) as (client, _):
        first = await client.post("/v1/classify", json={"input": DEFERRED})
        sent = len(stub_llm.requests)
        classify = await client.post("/v1/classify", json={"input": DEFERRED})
        named = {**CHAT, "model": "colours"}
        chat = await client.post("/v1/chat/completions", json=named)
        messages = await client.post("/v1/messages", json={**named, "max_tokens": 9})
        health = (await client.get("/healthz")).json()
        metrics = (await client.get("/metrics")).text
    assert first.status_code == 200
    assert len(stub_llm.requests) == sent
    left = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0) - datetime.now(UTC)
    for refused in (classify, chat, messages):
        assert refused.status_code == 429
        assert abs(int(refused.headers["retry-after"]) - left.total_seconds()) < 60
    assert chat.json()["error"]["code"] == classify.json()["error"]["code"] == "teacher_budget_reached"
    assert "teacher.budget.per_day" in chat.json()["error"]["message"]
    assert messages.json()["error"]["type"] == "rate_limit_error"
    assert health["budget"]["reached"]
    assert health["budget"]["spent"] > 0.001
    assert "its budget is spent" in health["problems"][0]
    assert 'tracer_teacher_errors_total{reason="budget_reached",task="colours"} 3.0' in metrics
    assert "tracer_budget_spent_ratio" in metrics


async def test_degraded_answers_are_marked_and_certified_ones_stay(task: MakeTask, stub_llm: StubLLM) -> None:
    """When the budget is spent, the surrogate answers uncertified with the reason, and certified texts as before."""
    spec = task(teacher=teacher(stub_llm, 0.001, when_reached="degraded"))
    make_version(spec)
    async with serving(spec) as (client, _):
        await client.post("/v1/classify", json={"input": DEFERRED})
        degraded = await client.post("/v1/classify", json={"input": unknown(1)})
        handled = await client.post("/v1/classify", json={"input": HANDLED})
    item = degraded.json()["data"][0]
    assert (item["decision"], item["reason"]) == ("degraded", "budget_reached")
    assert degraded.headers["x-tracer-decision"] == "degraded"
    assert handled.json()["data"][0]["decision"] == "handled"


async def test_drop_in_calls_count_and_are_refused(task: MakeTask, stub_llm: StubLLM) -> None:
    """A call in the teacher's own form that goes upstream as it came pays from the same budget."""
    spec = task(teacher=teacher(stub_llm, 0.001, when_reached="error"))
    async with serving(spec) as (client, runtime):
        body = getattr(runtime.router.teacher, "request")(DEFERRED)  # noqa: B009
        answers = [await client.post("/v1/chat/completions", json=body) for _ in range(2)]
        spent = await until_async(partial(_settled, runtime.store))
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["x-tracer-decision"] == "deferred"
    assert len(stub_llm.requests) == 1
    assert spent["spent"] > 0.001
    assert spent["calls"] == 1


async def test_audits_pay_from_the_budget(task: MakeTask, stub_llm: StubLLM) -> None:
    """An audit counts, and once the budget is spent handled texts are answered without one."""
    spec = task(teacher=teacher(stub_llm, 0.001), traces={"audit_rate": 1.0})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        for audits in ('"true",task="colours"} 1.0', '"unanswered",task="colours"} 1.0'):
            answer = await client.post("/v1/classify", json={"input": HANDLED})
            assert answer.json()["data"][0]["decision"] == "handled"
            await until_async(partial(_exposes, runtime, f"tracer_audit_total{{agree={audits}"))
    assert len(stub_llm.requests) == 1


def _settled(store: TraceStore) -> Any:
    """Return the record of the budget once the cost of a call is in it."""
    record = store.values.get(SPENT)
    return record and record["calls"] and record


def _exposes(runtime: Runtime, words: str) -> bool:
    return words in render([runtime.metrics]).decode()


async def test_a_new_day_renews_the_budget_and_keeps_calls_of_yesterday_apart(store: TraceStore) -> None:
    """A call that is under way over midnight costs the new day, and leaves no reservation behind."""
    now = [datetime(2026, 11, 30, 23, 59, tzinfo=UTC)]
    limit = SpendLimit(Budget(per_day=2.0), clock=lambda: now[0])
    limit.share(store.values)
    async with limit.call(PaidCall()) as paid:
        paid.cost = 1.9
    async with limit.call(PaidCall()) as paid:
        paid.cost = 0.5
        now[0] += timedelta(hours=1)
    await limit.settle()
    assert (limit.read().spent, limit.read().reserved, limit.read().day) == (0.5, 0.0, "2026-12-01")
    async with limit.call(PaidCall()) as paid:
        paid.cost = 1.6
    await limit.settle()
    with pytest.raises(BudgetError) as refused:
        async with limit.call(PaidCall()):
            pytest.fail("the budget is spent")
    assert refused.value.retry_after_s == 23 * 3600 + 60


async def test_calls_under_way_are_reserved_for(store: TraceStore) -> None:
    """Many calls at once, of two processes, exceed the cap by no more than the first calls, of unknown cost, do."""
    limits = [SpendLimit(Budget(per_day=1.0)) for _ in range(2)]
    under_way, most = 0, 0

    async def call(limit: SpendLimit) -> None:
        nonlocal under_way, most
        async with limit.call(PaidCall()) as paid:
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.02)
            under_way -= 1
            paid.cost = 0.1

    for limit in limits:
        limit.share(store.values)
    done = await asyncio.gather(*(call(limit) for limit in limits for _ in range(20)), return_exceptions=True)
    await asyncio.gather(*(limit.settle() for limit in limits))
    assert {type(one) for one in done} == {type(None), BudgetError}
    assert most > 2
    assert 1.0 <= limits[0].read().spent <= 1.0 + 2 * 0.1
    assert limits[0].read().reserved == pytest.approx(0.0)


def test_a_budget_needs_a_price() -> None:
    """Answers state tokens and not money, so a budget without a price is refused when the YAML is read."""
    with pytest.raises(PluginError, match="needs `price`"):
        teachers.build("openai", {"model": "stub-1", "labels": ("a", "b"), "budget": {"per_day": 1}})


@contextmanager
def _four_workers(folder: Path, stub: StubLLM, per_day: float) -> Iterator[tuple[httpx.Client, Task]]:
    port = free_port()
    spec = make_task(folder, stub, teacher=teacher(stub, per_day), server={"port": port, "workers": 4})
    env = bare(folder / "home", PYTHONPATH=":".join(sys.path))
    words = [sys.executable, "-m", "tracer_serve", str(folder / "task.yaml"), "--port", str(port)]
    with answering(words, port, folder, env) as client:
        yield client, spec


@pytest.mark.slow
def test_four_workers_under_load_exceed_the_cap_by_one_call_each_at_most(tmp_path: Path, stub_llm: StubLLM) -> None:
    """While sixty clients ask at once, the stub's calls cost at most the cap and one call per worker."""
    stub_llm.default = "blue"
    with _four_workers(tmp_path, stub_llm, per_day=4.0) as (client, spec):
        url, port = str(client.base_url), spec.spec.server.port
        statuses = asyncio.run(_load(url))
        assert len(workers_at(port)) == 4
        budget = client.get("/healthz").json()["budget"]
    paid = [_cost(json.loads(request["answer"])["usage"]) for request in stub_llm.requests]
    assert set(statuses) == {200, 429}
    assert len(paid) == statuses.count(200)
    assert budget["reached"]
    assert budget["spent"] == pytest.approx(sum(paid))
    assert 4.0 <= sum(paid) <= 4.0 + 4 * max(paid)


async def _load(url: str) -> list[int]:
    """Ask about different texts of different lengths from many connections, until most are refused."""

    async def ask(number: int) -> list[int]:
        found = []
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for turn in range(6):
                text = " ".join(unknown(1_000 * number + turn) for _ in range(1 + number % 5))
                found.append((await client.post("/v1/classify", json={"input": text})).status_code)
        return found

    return [status for found in await asyncio.gather(*map(ask, range(60))) for status in found]


def _cost(usage: dict[str, int]) -> float:
    """Return what an answer costs."""
    return usage["total_tokens"] / 1000
