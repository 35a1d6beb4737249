"""The numbers of the dashboard, and a text explained."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.server.worlds import BLUE, DEFERRED, HANDLED, LABELS, RED, make_policy, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.base import Component
from tracer_serve.config.load import Task
from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.certificate import LabelRecall, ProtectedLabel, SegmentRow
from tracer_serve.gate.monitor import anytime_lower_bound
from tracer_serve.lifecycle.gate_state.closing import close_gate
from tracer_serve.lifecycle.gate_state.reopening import ATTEMPT, reopening_of
from tracer_serve.lifecycle.refit_session import PROGRESS
from tracer_serve.server.dashboard.agreement import agreement_over_time
from tracer_serve.server.dashboard.recent import recent_of
from tracer_serve.server.dashboard.status import status_of
from tracer_serve.server.dashboard.traffic import traffic_of
from tracer_serve.server.routes.response_models import ErrorBody
from tracer_serve.storage.traces import Refit, new_id
from tracer_serve.storage.traces.lease_owner import LEASE, take_lease
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Trace

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
PRICED: dict[str, Any] = {
    "type": "openai",
    "model": "stub-1",
    "cache": {"size": 0},
    "price": {"currency": "EUR", "prompt_per_1m": 1000.0, "completion_per_1m": 1000.0},
}


def known_traces(task: Task) -> list[str]:
    """Put the texts of the world's policy into the store; returns their ids."""
    texts, store = RED + BLUE, store_of(task)
    rows = [Trace(new_id(), datetime.now(UTC), task.spec.name, text, LABELS[text], "import") for text in texts]
    store.traces.add(rows)
    store.close()
    return [row.id for row in rows]


async def test_mode_observe_tells_what_would_have_been_handled_and_saved(task: MakeTask, stub_llm: StubLLM) -> None:
    """Share of the requests, agreement with the teacher, and the cost of the teacher's answers."""
    spec = task(mode="observe", teacher=PRICED | {"base_url": stub_llm.url})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        before = (await client.get("/status.json")).json()["traffic"]["held_back"]
        await client.post("/v1/classify", json={"input": [*RED[:6], DEFERRED, f"{DEFERRED} again"]})
        runtime.watch.refresh()
        found = (await client.get("/status.json")).json()["traffic"]
    assert before == {"texts": 0, "agreed": 0, "share": None, "cost": None, "currency": "EUR"}
    held, today = found["held_back"], found["today"]
    assert (today["handled"], held["texts"], held["agreed"], held["share"]) == (0, 6, 6, 0.75)
    assert held["cost"] == pytest.approx(6 * found["money"]["per_call"], rel=0.2)


async def test_numbers_are_those_of_the_traffic(task: MakeTask, stub_llm: StubLLM) -> None:
    """Requests, decisions, audits, reasons, money and the anytime bound add up to what was asked."""
    spec = task(traces={"audit_rate": 1.0}, teacher=PRICED | {"base_url": stub_llm.url})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        await client.post("/v1/classify", json={"input": [HANDLED] * 6 + [DEFERRED] * 2})
        await runtime.router.audits.close(10)
        runtime.writer.close()
        runtime.watch.refresh()
        found = (await client.get("/status.json")).json()
    today, money = found["traffic"]["today"], found["traffic"]["money"]
    assert (today["requests"], today["handled"], today["deferred"], today["audits"]) == (8, 6, 2, 6)
    assert today["teacher_calls_saved"] == 0
    assert sum(hour["handled"] for hour in found["traffic"]["hours"]) == 6
    assert found["recent"]["reasons"] == [
        {"reason": "below_threshold", "words": "score under the threshold", "rows": 2}
    ]
    assert (found["recent"]["latency_ms"]["handled"]["rows"], found["recent"]["teacher"]["asked"]) == (6, 2)
    assert found["promise"]["lower_bound"] == pytest.approx(anytime_lower_bound(6, 6, 0.05))
    assert (found["promise"]["audits"], found["promise"]["agreements"]) == (6, 6)
    assert money["currency"] == "EUR"
    assert money["saved"] == pytest.approx(6 * money["per_call"] - money["audits"])
    assert money["spent"] + money["audits"] == pytest.approx(8 * money["per_call"])
    version = found["versions"][0]
    assert (version["number"], version["serves"], version["live"]["handled"]) == (1, True, 6)
    assert (version["coverage"], version["alpha"], version["proved_live_at"]) == (0.8, 0.9, None)
    assert found["agreement"]["points"][-1]["audits"] == 6
    assert found["breakers"][0]["state"] == "closed"


async def test_answers_that_are_held_back_are_compared_with_the_teachers(task: MakeTask, stub_llm: StubLLM) -> None:
    """In mode observe the numbers say how often the version would have agreed; uncertified answers do not count."""
    spec = task(mode="observe")
    stub_llm.labels = LABELS | {BLUE[0]: "red"}
    make_version(spec)
    async with serving(spec) as (client, runtime):
        await client.post("/v1/classify", json={"input": [HANDLED] * 3 + [BLUE[0], DEFERRED]})
        runtime.writer.close()
        recent = status_of(runtime)["recent"]
        others = recent_of(runtime.store.traces.recent(10), version=2)
    assert [row["rows"] for row in recent["reasons"]] == [4, 1]
    assert recent["held_back"] == {"rows": 4, "agreed": 3}
    assert others["held_back"] == {"rows": 0, "agreed": 0}


async def test_a_closed_gate_says_what_its_repair_waits_for(task: MakeTask) -> None:
    """How many labelled rows came since, at how many a refit starts, and after one in vain at how many the next."""
    spec = task(gate={"alpha": 0.9, "delta": 0.1})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        assert (await client.get("/healthz")).json()["gate"]["repair"] is None
        close_gate(runtime.store, 1, 20, 3, 50.0)
        runtime.watch.refresh()
        await client.post("/v1/classify", json={"input": [HANDLED, DEFERRED]})
        runtime.writer.close()
        first = (await client.get("/healthz")).json()["gate"]["repair"]
        waiting = reopening_of(spec.spec, runtime.store, runtime.versions)
        assert waiting is not None
        runtime.store.values.put(ATTEMPT, {"repair": replace(waiting, rows=100).tried()})
        second = status_of(runtime)["gate"]["repair"]
        begun = {"repair": replace(waiting, rows=100).tried(), "started": datetime.now(UTC).isoformat()}
        runtime.store.values.put(ATTEMPT, begun)
        third = status_of(runtime)["gate"]["repair"]
        runtime.store.values.put(ATTEMPT, begun | {"started": "2026-01-01T00:00:00+00:00"})
        assert status_of(runtime)["gate"]["repair"] == second
        assert take_lease(runtime.store, LEASE, "another", 60.0)
        fourth = status_of(runtime)["gate"]["repair"]
    least = 4 * n_min(0.9, 0.1)
    words = f"A refit starts at {least} labelled rows since then; there are 2."
    assert first == {"rows": 2, "needed": least, "tried_at": None, "words": words}
    assert (second["rows"], second["needed"], second["tried_at"]) == (2, 150, 100)
    assert second["words"].endswith("did not open the gate; the next starts at 150, and there are 2.")
    assert third["words"] == fourth["words"] == "A refit is running. If it certifies a version, the gate opens."


async def test_audits_are_summed_up_over_the_life_of_the_version(task: MakeTask) -> None:
    """Agreement so far with its anytime bound, by hour and later by day, and since when the version is proved live."""
    spec, now = task(), datetime(2026, 11, 2, 12, tzinfo=UTC)
    store = store_of(spec)

    def audits(hours_ago: float, n: int, agree: int, version: int = 1) -> None:
        ts = now - timedelta(hours=hours_ago)
        row = Trace(new_id(), ts, "colours", "t", "red", "audit", "red", decision="handled", version=version)
        store.traces.add([replace(row, id=new_id(), surrogate_label="red" if i < agree else "blue") for i in range(n)])

    audits(30, 40, 39)
    audits(2, 60, 60)
    audits(1, 9, 0, version=2)
    young, old = (
        agreement_over_time(store, 1, now - timedelta(days=days), now, delta=0.05, proved_at=90) for days in (2, 9)
    )
    unproved = agreement_over_time(store, 1, now - timedelta(days=2), now, delta=0.05, proved_at=None)
    store.close()
    assert (young["by"], old["by"]) == ("hour", "day")
    assert [(p["at"], p["audits"], p["agreements"]) for p in young["points"]] == [
        ("2026-11-01T06:00+00:00", 40, 39),
        ("2026-11-02T10:00+00:00", 100, 99),
    ]
    assert [p["at"][:10] for p in old["points"]] == ["2026-11-01", "2026-11-02"]
    assert young["points"][1]["lower_bound"] == anytime_lower_bound(99, 100, 0.05)
    assert (young["proved_since"], unproved["proved_since"]) == ("2026-11-02T10:00+00:00", None)


async def test_labels_are_shown_with_their_recall(task: MakeTask) -> None:
    """The certificate's recall per label, the live count of a protected one, and the warning about a lost one."""
    spec = task(gate={"alpha": 0.9, "protect": {"red": 0.9}})
    make_version(spec)
    lost, kept = LabelRecall("blue", 60, 50, 10, 1 / 3, 0.21, 0.47), LabelRecall("red", 200, 90, 90, 1.0, 0.98, 1.0)
    async with serving(spec) as (_, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        promised = (ProtectedLabel("red", 0.9, 200, 200, 0.98),)
        certificate = replace(loaded.policy.certificate, recalls=(lost, kept), protected=promised)
        runtime.live.loaded = replace(loaded, policy=replace(loaded.policy, certificate=certificate))
        runtime.watch.note_deferred(loaded.number, "red")
        runtime.watch.refresh()
        found = status_of(runtime)
    blue, red = found["labels"]
    assert (blue["label"], blue["required"], blue["live_rows"]) == ("blue", None, None)
    assert (red["label"], red["required"], red["live_rows"], red["live_kept"]) == ("red", 0.9, 1, 1)
    assert "of 60 calibration rows that the teacher labels 'blue', 40 are answered" in found["version"]["warning"]


async def test_segments_are_shown_with_what_each_was_certified_for(task: MakeTask) -> None:
    """A segment without a certificate handles nothing, has no bound, and says how many rows it lacks."""
    spec = task()
    make_version(spec)
    own = SegmentRow("short", "^.{0,9}$", 80, 60, 59, 0.93, 0.5, certified=True, reason="certified")
    without = SegmentRow("others", "", 20, 9, 8, 0.5, np.inf, certified=False, reason="insufficient", rows_needed=40)
    async with serving(spec) as (client, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        certificate = replace(loaded.policy.certificate, segments=(own, without))
        runtime.live.loaded = replace(loaded, policy=replace(loaded.policy, certificate=certificate))
        found = (await client.get("/status.json")).json()["segments"]
    assert [(row["segment"], row["handled"], row["lower_bound"], row["rows_needed"]) for row in found] == [
        ("short", 60, 0.93, 0),
        ("others", 0, None, 40),
    ]


async def test_two_workers_say_the_same(task: MakeTask) -> None:
    """What one worker answered is in the numbers of the other: they come from the store."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (first, busy), serving(spec) as (second, _):
        await first.post("/v1/classify", json={"input": [HANDLED, DEFERRED]})
        busy.writer.close()
        answers = [(await client.get("/status.json")).json() for client in (first, second)]
    for answer in answers:
        assert (answer["traffic"]["today"]["handled"], answer["traffic"]["today"]["deferred"]) == (1, 1)
        assert answer["recent"]["rows"] == 2


async def test_before_the_first_version_and_without_traffic_nothing_is_made_up(task: MakeTask) -> None:
    """No coverage, no agreement, no money: None, not zero."""
    async with serving(task()) as (client, _):
        found = (await client.get("/status.json")).json()
    assert (found["version"], found["promise"], found["versions"], found["traffic"]["money"]) == (None, None, [], None)
    assert found["traffic"]["today"]["coverage"] is None
    assert found["recent"]["latency_ms"]["handled"]["p50"] is None


async def test_a_refit_and_a_failing_teacher_are_seen(task: MakeTask, stub_llm: StubLLM) -> None:
    """A running refit's stage, how the last one ended, and what the teacher failed with."""
    async with serving(task()) as (client, runtime):
        stub_llm.script.extend(["500"])
        await client.post("/v1/classify", json={"input": "anything"})
        runtime.writer.close()
        runtime.store.leases.acquire(LEASE, "somebody", 60.0)
        runtime.store.values.put(PROGRESS, {"stage": "fitting", "done": 2, "total": 5})
        runtime.store.refits.record(Refit(reason="cron", outcome="abstained", version=3, ended=datetime.now(UTC)))
        found = (await client.get("/status.json")).json()
    assert found["refit"] == {"stage": "fitting", "done": 2, "total": 5}
    assert (found["refits"][0]["reason"], found["refits"][0]["outcome"]) == ("cron", "abstained")
    assert (found["recent"]["teacher"]["error_rate"], found["recent"]["teacher"]["errors"]) == (1.0, {"unavailable": 1})
    assert found["recent"]["reasons"][0]["reason"] == "no_version"


async def test_a_store_that_cannot_be_read_leaves_the_page_alive(task: MakeTask) -> None:
    """What is known without the store is still told, and the problem too."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        runtime.store.close()
        (spec.state / "traces.db").unlink()
        (spec.state / "traces.db").mkdir()
        answer = await client.get("/status.json")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["version"]["number"] == 1


async def test_money_counts_today_only_and_silent_hours_are_there(task: MakeTask) -> None:
    """Yesterday's traffic prices a call and is no saving of today; 24 hours are listed whatever happened."""
    spec, now = task(), datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
    store = store_of(spec)
    yesterday, today = now - timedelta(hours=20), now - timedelta(minutes=5)

    def trace(ts: datetime, decision: Any, cost: float) -> Trace:
        return Trace(new_id(), ts, "colours", "t", "red" if cost else None, decision=decision, version=1, cost=cost)

    store.traces.add([trace(yesterday, "deferred", 0.5)] * 1 + [trace(yesterday, "deferred", 1.5)])
    store.traces.add([trace(yesterday, "handled", 0.0), trace(today, "handled", 0.0), trace(today, "handled", 0.0)])
    found = traffic_of(store, {"currency": "CHF"}, now)
    store.close()
    assert found["money"] == {"currency": "CHF", "per_call": 1.0, "spent": 0.0, "audits": 0.0, "saved": 2.0}
    assert len(found["hours"]) == 24
    assert [hour["handled"] for hour in found["hours"] if hour["handled"]] == [1, 2]
    assert found["today"]["requests"] == 2


async def test_times_are_per_text_and_not_per_batch(task: MakeTask) -> None:
    """The texts of a long list share the time of their batches: all of them together took no longer than the call."""
    spec = task()
    make_version(spec)
    texts = [f"{text} {i}" for i in range(20) for text in RED]
    async with serving(spec) as (client, runtime):
        started = time.perf_counter()
        (await client.post("/v1/classify", json={"input": texts})).raise_for_status()
        whole_ms = 1e3 * (time.perf_counter() - started)
        runtime.writer.close()
        found = [row.latency_ms for row in runtime.store.traces.recent(1000)]
    assert len(found) == len(texts)
    assert 0 < sum(ms["embed"] + ms["predict"] for ms in found) < whole_ms


def test_imported_rows_are_no_requests() -> None:
    """Rows without a decision are left out, and nobody waited for an audit's answer."""
    now = datetime.now(UTC)
    imported = Trace(new_id(), now, "colours", "t", "red", "import")
    handled = Trace(
        new_id(), now, "colours", "t", decision="handled", latency_ms={"embed": 1.0, "predict": 2.0, "teacher": 250.0}
    )
    found = recent_of([imported, handled, imported])
    assert found["rows"] == 1
    assert found["latency_ms"]["handled"] == {"rows": 1, "p50": 3.0, "p99": 3.0}
    assert found["teacher"]["error_rate"] is None


def test_fields_are_compared_one_by_one() -> None:
    """Of rows that surrogate and teacher answered, each field is counted by itself; labels without fields are not."""
    now = datetime.now(UTC)

    def row(surrogate: str | None, teacher: str | None) -> Trace:
        return Trace(new_id(), now, "t", "x", teacher, surrogate_label=surrogate, decision="deferred")

    same, other = '{"a":"x","b":true}', '{"a":"x","b":false}'
    found = recent_of([row(same, same), row(same, other), row(None, same), row(same, None), row("red", "red")])
    assert found["fields"] == [{"field": "a", "rows": 2, "agreed": 2}, {"field": "b", "rows": 2, "agreed": 1}]
    assert recent_of([row("red", "red")])["fields"] == []


async def test_a_text_is_explained_without_teacher_or_trace(task: MakeTask, stub_llm: StubLLM) -> None:
    """Label, score against threshold, two candidates and the nearest traces; nobody is asked, nothing stored."""
    spec = task(surrogates=["logreg"])
    make_version(spec, ids=known_traces(spec))
    async with serving(spec) as (client, runtime):
        asked, rows = len(stub_llm.requests), runtime.store.tallies.counts().total.rows
        handled = (await client.post("/v1/explain", json={"input": HANDLED})).json()
        deferred = (await client.post("/v1/explain", json={"input": DEFERRED})).json()
        answered = (await client.post("/v1/classify", json={"input": HANDLED})).json()["data"][0]
        assert len(stub_llm.requests) == asked
        runtime.writer.close()
        assert runtime.store.tallies.counts().total.rows == rows + 1  # the classified one
    assert (handled["decision"], handled["reason"], handled["label"]) == ("handled", "certified", "red")
    assert handled["score"] == answered["score"] >= handled["threshold"] == 0.8
    assert [item["label"] for item in handled["labels"]] == ["red", "blue"]
    assert handled["runner_up"] == "blue"
    assert handled["nearest"][0] == {"text": HANDLED, "label": "red", "cosine": pytest.approx(1.0, abs=1e-3)}
    assert [near["cosine"] for near in handled["nearest"]] == sorted(
        (near["cosine"] for near in handled["nearest"]), reverse=True
    )
    assert (deferred["decision"], deferred["reason"]) == ("deferred", "below_threshold")


async def test_a_forgotten_trace_is_no_evidence(task: MakeTask) -> None:
    """Nearest traces are looked up in the store, so one that was removed is not shown."""
    spec = task()
    texts, store = RED + BLUE, store_of(spec)
    rows = [
        Trace(new_id(), datetime.now(UTC), "colours", text, LABELS[text], "import", metadata={"user": text})
        for text in texts
    ]
    store.traces.add(rows)
    make_version(spec, ids=[row.id for row in rows])
    store.users.forget(HANDLED)
    store.close()
    async with serving(spec) as (client, _):
        near = (await client.post("/v1/explain", json={"input": HANDLED})).json()["nearest"]
    assert near
    assert HANDLED not in [one["text"] for one in near]


@pytest.mark.parametrize(
    ("mode", "version", "reason"), [("observe", True, "observe"), ("enforce", False, "no_version")]
)
async def test_an_explanation_says_why_a_certified_answer_would_not_count(
    task: MakeTask, mode: str, version: bool, reason: str
) -> None:
    """In mode observe, and before the first version, the teacher answers."""
    spec = task(mode=mode)
    if version:
        make_version(spec)
    async with serving(spec) as (client, _):
        found = (await client.post("/v1/explain", json={"input": HANDLED})).json()
    assert (found["decision"], found["reason"]) == ("deferred", reason)


async def test_an_explanation_and_an_answer_agree_about_each_users_canary(task: MakeTask) -> None:
    """For every user `/v1/explain` names the decision and the reason that `/v1/classify` gives."""
    spec, users = task(mode="canary", canary=0.5), [f"user-{i}" for i in range(20)]
    make_version(spec)
    async with serving(spec) as (client, _):
        asked = [{"input": HANDLED, "user": user} for user in users]
        explained = [(await client.post("/v1/explain", json=body)).json() for body in asked]
        answered = [(await client.post("/v1/classify", json=body)).json() for body in asked]
    found = [(one["decision"], one["reason"]) for one in explained]
    assert found == [(one["data"][0]["decision"], one["data"][0]["reason"]) for one in answered]
    assert {*found} == {("handled", "certified"), ("deferred", "canary")}


async def test_half_a_character_in_a_trace_spoils_no_answer(task: MakeTask) -> None:
    """A text or a label with half a surrogate pair, which logs hold and UTF-8 cannot say, is shown as its escape."""
    spec = task(labels=None)
    traces = [
        Trace(id=new_id(), ts=datetime.now(UTC), task=spec.spec.name, input=f"{text} \ud83d", teacher_label=label)
        for text, label in zip(RED + BLUE, [*["red"] * len(RED), *["sky\ud83d"] * len(BLUE)], strict=True)
    ]
    store = store_of(spec)
    store.traces.add(traces)
    store.close()
    make_version(spec, ids=[trace.id for trace in traces])
    async with serving(spec) as (client, _):
        explained = await client.post("/v1/explain", json={"input": HANDLED})
        health, status = await client.get("/healthz"), await client.get("/status.json")
    assert explained.json()["nearest"][0]["text"].endswith("\ud83d")
    assert health.json()["new_labels"] == status.json()["new_labels"] == {"sky\ud83d": len(BLUE)}


@pytest.mark.parametrize("given", ["  ", ["a", "b"], [], 3])
async def test_what_cannot_be_explained_is_refused(task: MakeTask, given: Any) -> None:
    """Empty texts and lists get an error object."""
    async with serving(task()) as (client, _):
        answer = await client.post("/v1/explain", json={"input": given})
    assert answer.status_code == 400
    assert ErrorBody.model_validate(answer.json()).error.message


async def test_pairs_are_explained(task: MakeTask) -> None:
    """A task of pairs takes two texts, and its page has two fields."""
    async with serving(task(input="pair")) as (client, _):
        found = await client.post("/v1/explain", json={"input": ["a", "b"]})
        page = (await client.get("/")).text
    assert found.json()["reason"] == "no_version"
    assert 'id="try-second"' in page


async def test_numbers_want_a_key_where_there_are_keys(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page, numbers and explanations are as closed as the rest."""
    monkeypatch.setenv("SOME_KEY", "a-key-that-nobody-guesses")
    async with serving(task(server={"api_keys": ["${SOME_KEY}"]})) as (client, _):
        closed = [
            await client.get("/"),
            await client.get("/status.json"),
            await client.post("/v1/explain", json={"input": "a"}),
        ]
        opened = await client.get("/status.json", auth=("anybody", "a-key-that-nobody-guesses"))
    assert [answer.status_code for answer in closed] == [401, 401, 401]
    assert opened.status_code == 200


async def test_status_says_whether_the_admin_routes_are_open(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows its buttons only where a key could open them; the key itself is never told."""
    monkeypatch.delenv("TRACER_SERVE_ADMIN_KEY", raising=False)
    async with serving(task()) as (_, runtime):
        assert status_of(runtime)["admin"] is False
    monkeypatch.setenv("TRACER_SERVE_ADMIN_KEY", "an-operators-own-key")
    async with serving(task()) as (_, runtime):
        found = status_of(runtime)
    assert found["admin"] is True
    assert "an-operators-own-key" not in str(found)


async def test_the_page_asks_and_links_relative_to_itself(task: MakeTask) -> None:
    """So it works wherever a task is mounted among others."""
    async with serving(task()) as (client, _):
        page = (await client.get("/")).text
    own = page.split("</style>")[1]
    assert not re.findall(r"""(?:href|src|action)="/|fetch\(["'`]/|send\(["'`]/|act\(["'`]/""", own)
    assert 'fetch("status.json"' in own


async def test_a_cascade_is_explained_by_the_stage_that_was_asked_last(task: MakeTask) -> None:
    """Nearest traces and candidates are those of the embedder that the decision came from, whichever stage that was."""
    spec = task(surrogates=["logreg"])
    make_version(spec, ids=known_traces(spec))
    smaller = Component.model_validate({"type": "ngrams", "dim": 3})
    other = make_policy(replace(spec, spec=spec.spec.model_copy(update={"embedder": smaller})))
    async with serving(spec) as (client, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        first, second = loaded.policy.stages[0], other.stages[0]
        for stages, answers in (
            ((first, second), first),
            ((replace(first, scope_threshold=np.inf), second), second),
        ):
            runtime.live.loaded = replace(loaded, policy=replace(loaded.policy, stages=stages))
            found = (await client.post("/v1/explain", json={"input": HANDLED})).json()
            near = answers.view.index.query(answers.view.embed([HANDLED])).similarity[0]
            assert [item["cosine"] for item in found["nearest"]] == pytest.approx(near[:5].tolist(), abs=1e-3)
            assert found["decision"] == "handled"
