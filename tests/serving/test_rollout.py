"""Going live in steps, and what happens while the teacher is down."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.worlds import BLUE, DEFERRED, HANDLED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.serving.rollout import Rollout
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


def metric(text: str, series: str) -> float:
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series)), 0.0)


async def test_observing_the_teacher_answers_all_and_the_surrogate_is_scored(task: MakeTask) -> None:
    """Every row has the teacher's label beside the surrogate's, drawn at a rate of 1; agreement is counted."""
    async with serving(task(mode="observe", traces={"audit_rate": 0.03})) as (client, runtime):
        results = await runtime.router.route([HANDLED, *BLUE, DEFERRED])
        rows = [runtime.store.traces.get(result.trace_id) for result in results if isinstance(result, Decision)]
        metrics = (await client.get("/metrics")).text
    assert [result.kind for result in results if isinstance(result, Decision)] == ["deferred"] * 14
    reasons = [result.reason for result in results if isinstance(result, Decision)]
    assert (reasons[0], reasons[-1]) == ("observe", "below_threshold")
    assert all(row and row.teacher_label and row.surrogate_label and row.audit_rate == 1.0 for row in rows)
    assert metric(metrics, 'tracer_shadow_total{agree="true"') == 13
    assert metric(metrics, 'tracer_requests_total{decision="handled"') == 0


async def test_a_canary_is_the_same_users_each_time(task: MakeTask) -> None:
    """Users inside get certified answers, the others the teacher's, and all rows are drawn at one rate."""
    users = [f"user-{i}" for i in range(30)]
    async with serving(task(mode="canary", canary=0.5, traces={"audit_rate": 0.25})) as (_, runtime):
        kinds, rates = [], set()
        for _again in range(2):
            answers = [(await runtime.router.route([HANDLED], {"user": user}))[0] for user in users]
            decisions = [answer for answer in answers if isinstance(answer, Decision)]
            kinds.append([(decision.kind, decision.reason) for decision in decisions])
        runtime.writer.close()
        rates = {row.audit_rate for row in map(runtime.store.traces.get, [d.trace_id for d in decisions]) if row}
    assert kinds[0] == kinds[1]
    assert set(kinds[0]) == {("handled", "certified"), ("deferred", "canary")}
    assert rates == {0.25}


def test_a_growing_canary_keeps_who_is_in() -> None:
    """Shares are met within chance, sets are nested, 0 is nobody and 1 is everybody, also without a user."""
    users = [f"user-{i}" for i in range(4000)]

    def inside(share: float) -> set[str]:
        return {user for user in users if Rollout("canary", share, "colours").in_canary(user)}

    assert inside(0.0) == set()
    assert inside(0.1) < inside(0.3) < inside(1.0) == set(users)
    assert abs(len(inside(0.1)) - 400) < 5 * 19  # five deviations
    other = {user for user in users if Rollout("canary", 0.1, "other").in_canary(user)}
    assert len(other & inside(0.1)) < 150  # 40 expected
    assert Rollout("canary", 1.0).in_canary(None)
    assert not Rollout("canary", 0.0).in_canary(None)
    assert Rollout("canary", 0.5).in_canary("\ud800") in (True, False)


async def test_a_teacher_that_is_down_degrades_where_that_is_wanted(task: MakeTask, stub_llm: StubLLM) -> None:
    """The surrogate's label, marked in header, body, row and metrics; certified answers stay what they are."""
    async with serving(task(on_teacher_down="degraded")) as (client, runtime):
        stub_llm.script.extend(["500", "500"])
        answer = await client.post("/v1/classify", json={"input": DEFERRED})
        chat = {"model": "colours", "messages": [{"role": "user", "content": DEFERRED}]}
        chatted = await client.post("/v1/chat/completions", json=chat)
        handled = await client.post("/v1/classify", json={"input": HANDLED})
        metrics = (await client.get("/metrics")).text
        runtime.writer.close()
        item = answer.json()["data"][0]
        row, counts = runtime.store.traces.get(item["trace_id"]), runtime.store.tallies.counts().total
    assert (item["decision"], item["reason"], item["label"] in ("red", "blue")) == ("degraded", "teacher_down", True)
    assert answer.headers["x-tracer-decision"] == chatted.headers["x-tracer-decision"] == "degraded"
    assert handled.headers["x-tracer-decision"] == "handled"
    assert row is not None
    assert (row.decision, row.teacher_label, row.metadata["error"]) == ("degraded", None, "unavailable")
    assert (counts.handled, counts.degraded) == (1, 2)
    assert metric(metrics, 'tracer_requests_total{decision="degraded"') == 2
    assert metric(metrics, 'tracer_requests_total{decision="handled"') == 1


async def test_what_is_the_texts_fault_is_never_degraded(task: MakeTask, stub_llm: StubLLM) -> None:
    """A refused or nonsensical answer is an error; so is a teacher that is down where nothing else is said."""
    async with serving(task(on_teacher_down="degraded")) as (client, _):
        stub_llm.script.extend(["refusal", "nonsense"])
        answers = [await client.post("/v1/classify", json={"input": DEFERRED}) for _ in range(2)]
    async with serving(task()) as (client, _):
        stub_llm.script.append("500")
        answers.append(await client.post("/v1/classify", json={"input": DEFERRED}))
    assert [answer.status_code for answer in answers] == [503] * 3
