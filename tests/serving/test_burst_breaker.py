"""Bursts of one template: a few repeats are audited, and one disagreement defers the rest."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.server.worlds import HANDLED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.serving.burst_breaker import BurstBreaker, RepeatCounter
from tracer_serve.serving.runtime import Runtime
from tracer_serve.serving.template_miner import TemplateMiner
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.types import Decision

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]


@pytest.fixture
def task(tmp_path: Path, stub_llm: StubLLM) -> MakeTask:
    """Makes a task with a certified version; keywords are spec fields."""

    def make(**spec: object) -> Task:
        made = make_task(tmp_path, stub_llm, **spec)
        make_version(made)
        return made

    return make


async def ask(runtime: Runtime, number: int) -> Decision:
    """Route one text of the burst."""
    (result,) = await runtime.router.route([f"{HANDLED} and order {number}"])
    assert isinstance(result, Decision)
    return result


async def test_a_disagreement_in_a_burst_defers_the_rest_of_it(task: MakeTask, stub_llm: StubLLM) -> None:
    """The second repeat is audited and disagrees: the third is deferred in all processes; the monitor is not fed."""
    spec = task(traces={"audit_rate": 1e-9})
    stub_llm.labels, stub_llm.default = {}, "blue"
    async with serving(spec) as (client, runtime):
        runtime.watch.refresh()
        first, second = await ask(runtime, 1), await ask(runtime, 2)
        await runtime.router.audits.close(10)
        third = await ask(runtime, 3)
        runtime.watch.refresh()
        other = BurstBreaker()
        other.exchange(runtime.store, 1)
        explained = (await client.post("/v1/explain", json={"input": f"{HANDLED} and order 4"})).json()
        runtime.writer.close()
        rows = [runtime.store.traces.get(decision.trace_id) for decision in (first, second, third)]
        loaded = runtime.live.loaded
        assert loaded is not None
        assert runtime.watch.monitor(loaded).seen == 0
        metrics = (await client.get("/metrics")).text
    assert [(one.kind, one.reason) for one in (first, second)] == [("handled", "certified")] * 2
    assert (third.kind, third.reason, third.label) == ("deferred", "burst_disagreed", "blue")
    assert [row and row.audit_kind for row in rows] == [None, "burst", None]
    assert [row and row.teacher_label for row in rows] == [None, "blue", "blue"]
    assert other.defers(f"{HANDLED} and order 5")
    assert not other.defers("the sky is blue")
    assert explained["reason"] == "burst_disagreed"
    assert 'tracer_burst_audit_total{agree="false",task="colours"} 1.0' in metrics


async def test_a_burst_that_the_teacher_agrees_with_costs_a_few_audits(task: MakeTask, stub_llm: StubLLM) -> None:
    """Of sixty repeats the 2nd, 10th and 50th are audited and all are handled; a rate of 0 asks for none."""
    stub_llm.default = "red"
    for rate, audits in ((1e-9, 3), (0.0, 0)):
        async with serving(task(traces={"audit_rate": rate})) as (_, runtime):
            stub_llm.labels, before = {}, stub_llm.count
            kinds = {(await ask(runtime, number)).kind for number in range(60)}
            await runtime.router.audits.close(10)
            assert (kinds, stub_llm.count - before) == ({"handled"}, audits)


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    """An empty store."""
    return open_store(tmp_path / "traces.db", "t")


def test_a_new_version_starts_afresh(store: TraceStore) -> None:
    """What one version was wrong about is handled by the next one, in this process and in others."""
    breaker, late = BurstBreaker(), BurstBreaker()
    breaker.exchange(store, 1)
    breaker.disagree(1, "hi this is Ann from Rome")
    breaker.disagree(0, "an audit of an older version")
    breaker.exchange(store, 1)
    late.exchange(store, 1)
    assert breaker.defers("hi this is Bob from Rome")
    assert late.defers("hi this is Eve from Rome")
    assert breaker.deferred == 1
    for one in (breaker, late):
        one.exchange(store, 2)
        assert not one.defers("hi this is Bob from Rome")


def test_counts_start_again_after_the_window() -> None:
    """The second repeat is due once a window."""
    now = [0.0]
    breaker = BurstBreaker(window_s=60, clock=lambda: now[0])
    assert [breaker.count("where is order 1") for _ in range(3)] == [False, True, False]
    now[0] = 61.0
    assert [breaker.count("where is order 1") for _ in range(3)] == [False, True, False]


def test_of_ready_vectors_only_equal_ones_are_repeats(store: TraceStore) -> None:
    """Vectors that begin alike are different inputs; a disagreement defers an equal one in all processes."""
    breaker, other = BurstBreaker(templates=False), BurstBreaker(templates=False)
    vectors = [json.dumps([0.5, 0.25, i, 0.125]) for i in range(9)]
    assert not any(breaker.count(one) for one in vectors)
    assert breaker.count(vectors[3])
    breaker.exchange(store, 1)
    breaker.disagree(1, vectors[3])
    breaker.exchange(store, 1)
    other.exchange(store, 1)
    assert [other.defers(one) for one in vectors] == [i == 3 for i in range(9)]


def test_memory_is_bounded_and_frequent_keys_stay() -> None:
    """Between thousands of rare keys a frequent one is counted exactly, and no more keys are kept than said."""
    counter, miner = RepeatCounter(most=10), TemplateMiner(most=10)
    due = []
    for i in range(500):
        due.append(counter.add("frequent"))
        counter.add(f"rare {i}")
        counter.add(f"twice {i // 2}")
        miner.template_of(" ".join(f"{chr(97 + i % 26)}{'x' * j}" for j in range(i % 40)))
    assert [i + 1 for i, is_due in enumerate(due) if is_due] == [2, 10, 50, 250]
    assert len(counter._counts) <= 10 >= len(counter._once)
    assert len(miner._words) == 10


def test_most_rows_of_wrong_bursts_are_deferred() -> None:
    """Of 200 bursts of 100 rows 5.6 % are wrong: under .2 % of the handled rows are, for three audits a burst."""
    rng, handled, wrong, audits = np.random.default_rng(0), 0, 0, 0
    breaker = BurstBreaker()
    breaker._version = 1
    for burst in range(200):
        is_wrong = rng.random() < 0.056
        words = " ".join("".join(rng.choice(list("abcdefgh"), 6)) for _ in range(8))
        for row in range(100):
            text = f"{words} number {burst} {row}"
            if breaker.defers(text):
                continue
            handled, wrong = handled + 1, wrong + is_wrong
            if breaker.count(text):
                audits += 1
                if is_wrong:
                    breaker.disagree(1, text)
    assert wrong / handled < 0.002
    assert audits / 200 < 4
