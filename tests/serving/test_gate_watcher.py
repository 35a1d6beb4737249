"""Gate and monitor while serving: alarms close, teachers change, labels appear, texts are redacted."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.server.worlds import BLUE, DEFERRED, HANDLED, make_policy, make_task, make_version, serving
from tests.support.stub_llm import StubLLM
from tests.support.tiny import rows_now
from tests.support.waiting import until_async
from tracer_serve.components.factory import teacher_fingerprint
from tracer_serve.components.registry import redactors
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.errors import StoreError
from tracer_serve.gate.certificate import ProtectedLabel
from tracer_serve.infra.redaction import WITHHELD
from tracer_serve.lifecycle.gate_state.closing import close_gate, closing_of
from tracer_serve.lifecycle.gate_state.monitor_record import MONITOR
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.types import Decision

MakeTask = Callable[..., Task]


@pytest.fixture
def task(tmp_path: Path, stub_llm: StubLLM) -> MakeTask:
    """Makes a task; keywords are spec fields."""
    return lambda **spec: make_task(tmp_path, stub_llm, **spec)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    """An empty store."""
    opened = open_store(tmp_path / "traces.db", "colours")
    yield opened
    opened.close()


def watching(store: TraceStore, loaded: ActiveVersion | None, *, gate: Any = None, **traces: Any) -> GateWatcher:
    """Return a watch over a version that is in memory already; nothing runs by itself."""
    live = VersionLoader(lambda: None, lambda _: pytest.fail("nothing to load"))
    live.loaded = loaded
    parts = {"gate": gate or {"alpha": 0.9}, "traces": {"audit_rate": 0.05, **traces}}
    return GateWatcher(store, live, "teacher", Spec.model_validate({"name": "colours", "teacher": "offline", **parts}))


@pytest.fixture
def loaded(task: MakeTask) -> ActiveVersion:
    """Version 7, certified at .9."""
    return ActiveVersion(7, make_policy(task()), "teacher", ("blue", "red"))


def test_audits_of_all_workers_add_up_to_one_alarm(store: TraceStore, loaded: ActiveVersion) -> None:
    """Evidence is summed in the store; the alarm closes the gate for every worker at its next look, and for good."""
    first, second, third = (watching(store, loaded) for _ in range(3))
    for watch in (first, second) * 2:
        watch.note_audit(7, agree=False)
        watch.refresh()
    assert first.closed(loaded) == second.closed(loaded) == "drift"
    closing = closing_of(store)
    assert closing is not None
    assert (closing.version, closing.agreements) == (7, 0)
    assert third.closed(loaded) is None
    third.refresh()
    assert third.closed(loaded) == "drift"
    assert third.closing == closing


def test_the_monitor_survives_a_restart(store: TraceStore, loaded: ActiveVersion) -> None:
    """A new process goes on where the last one was; what was answered but not folded in is not counted twice."""
    before = watching(store, loaded)
    for agree in (True, False, True):
        before.note_audit(7, agree)
    before.refresh()
    after = watching(store, loaded)
    after.refresh()
    assert after.monitor(loaded) == before.monitor(loaded)
    assert (after.monitor(loaded).seen, after.monitor(loaded).agreements) == (3, 2)


def test_an_alarm_that_nobody_lived_to_tell_closes_the_gate(store: TraceStore, loaded: ActiveVersion) -> None:
    """A process that dies between its last audit and the closing leaves a state by which any other closes."""
    watch = watching(store, loaded)
    for _ in range(6):
        watch.note_audit(7, agree=False)
    watch._store_audits()
    assert closing_of(store) is None
    other = watching(store, loaded)
    other.refresh()
    assert other.closed(loaded) == "drift"


def test_audits_of_other_versions_are_ignored(store: TraceStore, loaded: ActiveVersion) -> None:
    """What was asked about a version that no longer serves says nothing of the one that does."""
    watch = watching(store, loaded)
    for _ in range(20):
        watch.note_audit(6, agree=False)
        watch.note_audit(None, agree=False)
    watch.refresh()
    assert watch.closed(loaded) is None
    assert store.values.get(MONITOR) is None
    assert watch.monitor(loaded).seen == 0


def test_only_a_version_calibrated_after_the_closing_opens_the_gate(store: TraceStore, loaded: ActiveVersion) -> None:
    """Neither a refit that was under way nor a rollback opens it; a version that respected the closing does."""
    closing = close_gate(store, version=7, audits=9, agreements=2, evidence=50.0)
    watch = watching(store, loaded)
    watch.refresh()
    under_way, older = replace(loaded, number=8), replace(loaded, number=3)
    repaired = replace(loaded, number=9, after=closing.after)
    assert [watch.closed(version) for version in (under_way, older, repaired)] == ["drift", "drift", None]


def test_evidence_raises_the_audit_rate(store: TraceStore, loaded: ActiveVersion) -> None:
    """The rate is the spec's until an audit disagrees, ten times that while the evidence is 1 or more."""
    watch = watching(store, loaded)
    watch.refresh()
    assert watch.rate == 0.05
    watch.note_audit(7, agree=False)
    watch.refresh()
    assert watch.rate == 0.5


def test_a_store_that_fails_keeps_what_is_known(
    store: TraceStore, loaded: ActiveVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked or full disk neither opens a closed gate nor loses an audit."""
    close_gate(store, version=7, audits=9, agreements=2, evidence=50.0)
    watch = watching(store, loaded)
    watch.refresh()

    def broken(*_: Any) -> Any:
        raise StoreError("the disk is full")

    repaired = replace(loaded, number=8, after="~")
    watch._live.loaded = repaired
    watch.note_audit(8, agree=True)
    with monkeypatch.context() as disk:
        disk.setattr(store.values, "get", broken)
        watch.refresh()
        assert watch.problem == "the disk is full"
        assert watch.closed(loaded) == "drift"
    watch.refresh()
    assert watch.problem is None
    assert watch.monitor(repaired).seen == 1


def test_what_another_release_wrote_does_not_end_the_watch(
    store: TraceStore, loaded: ActiveVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that cannot be read is told, and the next alarm closes the gate all the same; no audit is lost by it."""
    watch = watching(store, loaded)
    watch.note_audit(loaded.number, agree=True)
    store.values.put(MONITOR, {"of": "another release"})
    watch.refresh()
    assert watch.problem
    assert "last known state stays" in caplog.text
    store.values.put(MONITOR, None)
    watch.refresh()
    assert watch.monitor(loaded).seen == 1


def test_drift_does_not_wait_for_a_store_that_is_away(tmp_path: Path, loaded: ActiveVersion) -> None:
    """Audits that nobody can be told of close the gate where they were asked, and for all once the store is back."""
    store = open_store(tmp_path / "traces.db", "colours", busy_timeout_s=0.01)
    watch, elsewhere = watching(store, loaded), watching(store, loaded)
    watch.refresh()
    other = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    watch.note_audit(7, agree=False)
    watch.refresh()
    assert watch.closed(loaded) is None
    for _ in range(5):
        watch.note_audit(7, agree=False)
    watch.refresh()
    assert "another process" in (watch.problem or "")
    assert watch.closed(loaded) == "drift"
    assert closing_of(store) is None
    other.execute("ROLLBACK")
    other.close()
    watch.refresh()
    elsewhere.refresh()
    assert watch.closed(loaded) == elsewhere.closed(loaded) == "drift"
    assert watch.closing == closing_of(store)
    assert (watch.problem, watch.monitor(loaded).seen) == (None, 6)
    store.close()


def test_a_new_version_inherits_the_evidence(store: TraceStore, loaded: ActiveVersion) -> None:
    """A refit, or a rollback, changes neither evidence nor alarm; the audits of the version count from 0."""
    watch = watching(store, loaded)
    for agree in (False, True):
        watch.note_audit(7, agree)
    watch.refresh()
    before = watch.monitor(loaded)
    for number in (8, 7):
        watch._live.loaded = later = replace(loaded, number=number)
        watch.refresh()
        found = watch.monitor(later)
        assert found.evidence == before.evidence
    watch._live.loaded = newest = replace(loaded, number=8)
    watch.note_audit(8, agree=False)
    watch.refresh()
    found = watch.monitor(newest)
    assert (found.seen, found.agreements, found.before) == (1, 0, 2)
    assert found.evidence > before.evidence > 1


def test_a_repair_begins_with_a_new_monitor(store: TraceStore, loaded: ActiveVersion) -> None:
    """What was certified after the alarm starts at evidence 1, and a process that lags behind cannot undo that."""
    watch, late = watching(store, loaded), watching(store, loaded)
    for _ in range(6):
        watch.note_audit(7, agree=False)
    watch.refresh()
    assert watch.closing is not None
    watch._live.loaded = repaired = replace(loaded, number=8, after=watch.closing.after)
    watch.refresh()
    assert watch.monitor(repaired).evidence == pytest.approx(1.0)
    watch.note_audit(8, agree=True)
    watch.refresh()
    late.note_audit(7, agree=False)
    late.refresh()
    watch.refresh()
    assert (watch.monitor(repaired).seen, watch.closed(repaired)) == (1, None)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"alpha": 0.95}, "gate.alpha is 0.95, and the version was certified for 0.9"),
        ({"alpha": 0.9, "delta": 0.01}, "gate.delta is 0.01, and the version was certified for 0.05"),
        ({"alpha": 0.9, "guarantee": "overall"}, "gate.guarantee is overall, and the version was certified for prob"),
        ({"alpha": 0.9, "spend": "series"}, "gate.spend is series"),
        ({"alpha": 0.9, "per_class": True}, "gate.per_class is true"),
        ({"alpha": 0.9, "mode": "strict"}, None),
        ({"alpha": 0.8, "delta": 0.1}, None),
    ],
)
def test_a_promise_that_was_raised_closes_the_gate(
    store: TraceStore, loaded: ActiveVersion, gate: dict[str, Any], told: str | None
) -> None:
    """A certificate for less than the YAML promises is void; one for as much or more stays."""
    found = watching(store, loaded, gate=gate).state(loaded)
    if told is None:
        assert found.open
    else:
        assert found.reason == "promise_changed"
        assert told in found.message
        assert "tracer-serve refit" in found.message


def test_a_cross_fitted_certificate_is_no_strict_one(store: TraceStore, loaded: ActiveVersion) -> None:
    """`mode: strict` asks for the theorem as stated."""
    crossed = replace(loaded.policy.certificate, mode="cross_fit")
    other = replace(loaded, policy=replace(loaded.policy, certificate=crossed))
    assert watching(store, other, gate={"alpha": 0.9, "mode": "strict"}).closed(other) == "promise_changed"
    assert watching(store, other).closed(other) is None


@pytest.mark.anyio
async def test_alpha_raised_in_the_yaml_defers_and_lowered_keeps(task: MakeTask) -> None:
    """The service that starts with a higher alpha asks the teacher and says why; with a lower one it handles."""
    make_version(task(gate={"alpha": 0.9}))
    found = {}
    for alpha in (0.95, 0.85):
        async with serving(task(gate={"alpha": alpha})) as (client, _):
            asked = await client.post("/v1/classify", json={"input": HANDLED})
            found[alpha] = asked.json(), (await client.get("/healthz")).json(), (await client.get("/metrics")).text
    raised, health, exposed = found[0.95]
    (raised,) = raised["data"]
    assert (raised["decision"], raised["reason"]) == ("deferred", "gate_closed")
    assert (health["status"], health["gate"]["reason"]) == ("degraded", "promise_changed")
    assert (
        "gate.alpha is 0.95, and the version was certified for 0.9. A version that is certified for it opens"
        in health["problems"][0]
    )
    assert 'tracer_gate_closed{reason="promise_changed",task="colours"} 1.0' in exposed
    assert found[0.85][0]["data"][0]["decision"] == "handled"
    assert found[0.85][1]["gate"]["open"]


@pytest.mark.anyio
async def test_drift_closes_the_gate_under_load_and_a_new_version_opens_it(task: MakeTask, stub_llm: StubLLM) -> None:
    """From audit to closed gate to repaired version: reasons, shadow scores, metrics and health say so."""
    spec = task(traces={"audit_rate": 1.0})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        stub_llm.labels = dict.fromkeys(BLUE, "red")
        for _ in range(2):
            await runtime.router.route(BLUE)
        await until_async(lambda: runtime.gate.void)
        (decision,) = await runtime.router.route([BLUE[0]])
        health = (await client.get("/healthz")).json()
        exposed = (await client.get("/metrics")).text
        assert isinstance(decision, Decision)
        row = runtime.store.traces.get(decision.trace_id)
        closing = runtime.watch.closing
        assert closing is not None

        make_version(spec, after=closing.after)
        await until_async(lambda: runtime.live.loaded is not None and runtime.live.loaded.number == 2)
        (again,) = await runtime.router.route([BLUE[0]])
        later = (await client.get("/healthz")).json()
    assert (decision.kind, decision.reason, decision.label) == ("deferred", "gate_closed", "red")
    assert row is not None
    assert (row.surrogate_label, row.audit_rate, row.version) == ("blue", 1.0, 1)
    assert row.score is not None
    assert (health["status"], health["gate"]["open"], health["gate"]["reason"]) == ("degraded", False, "drift")
    assert "drift: version 1 agreed with the teacher on 0 of" in health["problems"][0]
    assert 'tracer_gate_closed{reason="drift",task="colours"} 1.0' in exposed
    assert isinstance(again, Decision)
    assert (again.kind, again.version) == ("handled", 2)
    assert later["gate"]["open"]
    assert later["monitor"]["audits"] <= 1


@pytest.mark.anyio
async def test_another_teacher_voids_the_certificate(task: MakeTask) -> None:
    """Where the spec's teacher is not the version's everything is deferred, and back again with the old one."""
    old = task()
    make_version(old)
    other = dict(old.spec.teacher.params) | {"type": "openai", "prompt": "another one"}
    async with serving(task(teacher=other)) as (client, runtime):
        (decision,) = await runtime.router.route([HANDLED])
        health = (await client.get("/healthz")).json()
    async with serving(task()) as (_, runtime):
        (again,) = await runtime.router.route([HANDLED])
    assert isinstance(decision, Decision)
    assert (decision.kind, decision.reason) == ("deferred", "gate_closed")
    assert health["gate"]["reason"] == "teacher_changed"
    assert isinstance(again, Decision)
    assert again.kind == "handled"


@pytest.mark.anyio
async def test_a_new_label_is_counted_told_and_no_other_teacher(task: MakeTask, stub_llm: StubLLM) -> None:
    """In an open task a label never seen is a metric and a line of /healthz; the fingerprint stays the spec's."""
    spec = task(labels=None)
    make_version(spec)
    async with serving(spec) as (client, runtime):
        stub_llm.labels = {DEFERRED: "mauve"}
        (decision,) = await runtime.router.route([DEFERRED])
        assert isinstance(decision, Decision)
        row = runtime.store.traces.get(decision.trace_id)
        health = (await client.get("/healthz")).json()
        exposed = (await client.get("/metrics")).text
    assert row is not None
    assert row.teacher_fingerprint == LocalVersions(spec.state / "versions").manifest(1).teacher
    assert health["new_labels"] == {"mauve": 1}
    assert 'tracer_new_labels_total{task="colours"} 1.0' in exposed


@pytest.mark.anyio
async def test_an_open_task_s_teacher_sees_the_labels_of_the_traces(task: MakeTask, stub_llm: StubLLM) -> None:
    """Labels that recur in the store, and those it gives later on, stand in the prompt; the fingerprint stays."""
    spec = task(labels=None)
    store = open_store(spec.state / "traces.db", "colours")
    store.traces.add([replace(row, task="colours") for row in rows_now(8, teacher_label="teal")])
    store.close()
    async with serving(spec) as (_, runtime):
        before = runtime.router.fingerprint
        stub_llm.labels = dict.fromkeys(("a", "b", "c", "d"), "mauve")
        await runtime.router.route(["a", "b", "c"])
        (decision,) = await runtime.router.route(["d"])
        asked = [request["body"]["messages"][0]["content"] for request in stub_llm.requests]
        assert isinstance(decision, Decision)
        row = runtime.store.traces.get(decision.trace_id)
    assert all("nothing else: teal, or another short label" in prompt for prompt in asked[:3])
    assert "nothing else: teal, mauve, or another short label" in asked[3]
    assert row is not None
    assert (row.teacher_label, row.teacher_fingerprint) == ("mauve", before)
    assert teacher_fingerprint(spec) == before


@pytest.mark.anyio
async def test_only_redacted_texts_are_stored_and_the_teacher_gets_the_whole(task: MakeTask, stub_llm: StubLLM) -> None:
    """Address and number are in no row; the teacher is asked with the text as it came, for audits too."""
    spec = task(traces={"redact": ["pii"], "audit_rate": 1.0})
    make_version(spec)
    asked = [f"{HANDLED} ann@mail.example", f"{DEFERRED} 0049301234567"]
    async with serving(spec) as (_, runtime):
        stub_llm.labels = dict.fromkeys(asked, "red")
        results = await runtime.router.route(asked)
        await runtime.router.audits.close(10)
        runtime.writer.close()
        rows = {row.decision: row for row in runtime.store.traces.recent()}
    assert [r.label for r in results if isinstance(r, Decision)] == ["red", "red"]
    assert {kind: row.input for kind, row in rows.items()} == {
        "handled": f"{HANDLED} [email]",
        "deferred": f"{DEFERRED} [phone]",
    }
    assert {row.teacher_label for row in rows.values()} == {"red"}


@pytest.mark.anyio
async def test_a_text_that_cannot_be_redacted_is_deferred_and_not_stored(task: MakeTask) -> None:
    """A redactor that raises costs the row, not the answer, and the surrogate does not judge the placeholder."""

    class Fails:
        def redact(self, text: str) -> str:
            if text == HANDLED:
                raise ValueError(text)
            return text

    redactors.register("fails")(Fails)
    spec = task(traces={"redact": ["fails"], "audit_rate": 0.0})
    make_version(spec)
    async with serving(spec) as (_, runtime):
        results = await runtime.router.route([HANDLED, BLUE[0]])
        runtime.writer.close()
        rows = runtime.store.traces.recent()
    assert [(r.kind, r.label) for r in results if isinstance(r, Decision)] == [("deferred", "red"), ("handled", "blue")]
    assert [row.input for row in rows] == [BLUE[0]]
    assert WITHHELD not in {row.input for row in rows}


def test_auto_reads_the_traffic_and_the_budget_what_was_audited(store: TraceStore, loaded: ActiveVersion) -> None:
    """3,000 requests within the hour of which .8 are handled are 57,600 a day: 240 audits, a rate of .0042."""
    rows = [replace(row, task="colours") for row in rows_now(3_000, teacher_label=None, label_source=None)]
    store.traces.add(rows)
    auto, spent = (watching(store, loaded, **spec) for spec in ({"audit_rate": "auto"}, {"audit_budget": 0}))
    for watch in (auto, spent):
        watch.refresh()
    assert auto.rate == pytest.approx(240 / 57_600, rel=0.1)
    assert spent.rate == 0.0


@pytest.mark.anyio
async def test_a_budget_holds_before_there_is_any_traffic_to_go_by(task: MakeTask) -> None:
    """One request of 200 texts, all handled, at a rate of 1: no more audits are asked for than the budget."""
    spec = task(traces={"audit_rate": 1.0, "audit_budget": 10})
    make_version(spec)
    async with serving(spec) as (_, runtime):
        await runtime.router.route([HANDLED] * 200)
        await until_async(lambda: runtime.store.tallies.counts().by_source.get("audit", 0) > 0)
        await asyncio.sleep(0)
        runtime.writer.close()
        rows = list(runtime.store.traces.recent(300))
    audited = [row for row in rows if row.u < row.audit_rate]
    assert 1 <= len(audited) <= 10
    assert {row.audit_rate for row in rows if row not in audited} == {0.0}


PROTECTING: dict[str, Any] = {"alpha": 0.9, "protect": {"red": 0.9}}


@pytest.fixture
def protecting(task: MakeTask) -> ActiveVersion:
    """Version 7, certified at .9, with a recall of .9 for red."""
    policy = make_policy(task())
    certificate = replace(policy.certificate, protected=(ProtectedLabel("red", 0.9, 100, 96, 0.91),))
    return ActiveVersion(7, replace(policy, certificate=certificate), "teacher", ("blue", "red"))


def test_a_protected_label_that_is_lost_closes_the_gate(store: TraceStore, protecting: ActiveVersion) -> None:
    """Agreement of 97 % over all audits hides that one label is lost; its own monitor closes the gate and names it."""
    watch, other = (watching(store, protecting, gate=PROTECTING) for _ in range(2))
    for i in range(300):
        watch.note_audit(7, agree=True, label="blue")
        if i % 40 == 0:
            watch.note_audit(7, agree=False, label="red")
    watch.refresh()
    other.refresh()
    assert not watch.monitor(protecting).alarm
    assert watch.closed(protecting) == other.closed(protecting) == "drift"
    closing = closing_of(store)
    assert closing is not None
    assert closing.label == "red"
    assert "labels 'red', version 7 kept 0 of 8" in closing.message


def test_deferred_requests_of_a_protected_label_are_kept(store: TraceStore, protecting: ActiveVersion) -> None:
    """A lost request among many that were deferred is within the promise; other labels are not watched."""
    watch = watching(store, protecting, gate=PROTECTING)
    for i in range(60):
        watch.note_deferred(7, "red")
        watch.note_deferred(6, "red")
        watch.note_audit(7, agree=True, label="blue")
        if i % 20 == 0:
            watch.note_audit(7, agree=False, label="red")
    watch.refresh()
    (state,) = watch.labels.states.values()
    assert (state.seen, state.agreements) == (63, 60)
    assert watch.closed(protecting) is None


def test_a_version_without_the_promise_closes_the_gate(store: TraceStore, loaded: ActiveVersion) -> None:
    """A label that the YAML protects now, and the version was not certified for, defers everything."""
    watch = watching(store, loaded, gate=PROTECTING)
    assert watch.closed(loaded) == "promise_changed"
    assert "gate.protect.red is 0.9, and the version was certified for none" in watch.state(loaded).message
