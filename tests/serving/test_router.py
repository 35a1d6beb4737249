"""The router and what it stands on: who answers, what is stored, what happens when something breaks."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.worlds import (
    BLUE,
    DEFERRED,
    HANDLED,
    RED,
    make_policy,
    make_task,
    make_version,
    serving,
    with_embedder,
)
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until_async
from tracer_serve.cli.commands._prepare import prepare
from tracer_serve.components.registry import embedders, teachers
from tracer_serve.config.load import Task
from tracer_serve.errors import ArtifactError, OverloadedError, StoreError
from tracer_serve.infra.caller import CALLER
from tracer_serve.policy.policy import Policy
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.batcher import Batcher, BatchTimes, MaybeVerdict
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.versions.manifest import checksums
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.types import Answer, Decision, Inputs, Labels, Text, Vectors, Verdict

pytestmark = pytest.mark.anyio


@pytest.fixture
def task(tmp_path: Path, stub_llm: StubLLM) -> Callable[..., Task]:
    """Makes a task; keywords are spec fields."""
    return lambda **spec: make_task(tmp_path, stub_llm, **spec)


MakeTask = Callable[..., Task]


async def test_audits_are_asked_at_the_rate_and_stored_with_their_propensity(task: MakeTask) -> None:
    """Handled rows with u under the rate, and only those, get the teacher's label after the reply."""
    spec = task(traces={"audit_rate": 0.4})
    make_version(spec)
    async with serving(spec) as (_, runtime):
        results = await runtime.router.route(BLUE * 10)
        ids = [result.trace_id for result in results if isinstance(result, Decision)]
        await runtime.router.audits.close(10)
        runtime.writer.close()
        rows = [row for row in map(runtime.store.traces.get, ids) if row is not None]
    assert len(rows) == len(BLUE) * 10
    assert {row.propensity for row in rows} == {row.audit_rate for row in rows} == {0.4}
    assert [row.audit_kind == "random" for row in rows] == [row.u < 0.4 for row in rows]
    assert [row.label_source == "audit" for row in rows] == [row.audit_kind is not None for row in rows]
    assert 20 < sum(row.teacher_label is not None for row in rows) < 76  # 48 expected, five deviations are 27
    assert all(row.teacher_label in (None, "blue") for row in rows)


async def test_an_uncertified_version_answers_nothing(task: MakeTask) -> None:
    """Without a certificate the surrogate's verdict is recorded in shadow and the teacher answers, at a rate of 1."""
    spec = task(traces={"audit_rate": 0.1})
    make_version(spec, certified=False)
    async with serving(spec) as (_, runtime):
        (result,) = await runtime.router.route([HANDLED])
        assert isinstance(result, Decision)
        row = runtime.store.traces.get(result.trace_id)
    assert (result.kind, result.reason, result.label) == ("deferred", "no_certificate", "red")
    assert row is not None
    assert (row.surrogate_label, row.audit_rate, row.version) == ("red", 1.0, 1)


class Broken:
    """An embedder that fails on some texts and counts its calls."""

    trainable = False
    fingerprint = "broken"

    def __init__(self, inner: Any, bad: str) -> None:
        self.inner, self.bad = inner, bad

    def fit(self, texts: Any) -> "Broken":
        raise NotImplementedError(texts)

    def embed(self, texts: Any) -> Vectors:
        if self.bad in texts:
            raise RuntimeError("out of memory")
        vectors: Vectors = self.inner.embed(texts)
        return vectors


async def test_a_failing_embedder_defers_the_text_it_fails_on_and_no_other(task: MakeTask) -> None:
    """An error before a certified answer is a deferral of that text; its neighbours in the batch are answered."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        policy = with_embedder(loaded.policy, Broken(loaded.policy.view.embedder, HANDLED))
        runtime.live.loaded = replace(loaded, policy=policy)
        results = await runtime.router.route([BLUE[0], HANDLED, BLUE[1]])
        exposed = (await client.get("/metrics")).text
    assert [r.kind for r in results if isinstance(r, Decision)] == ["handled", "deferred", "handled"]
    assert [r.reason for r in results if isinstance(r, Decision)][1] == "policy_failed"
    assert 'tracer_policy_failures_total{task="colours"} 1.0' in exposed


async def test_an_input_that_no_embedder_can_read_is_the_clients_error(task: MakeTask) -> None:
    """What the embedder calls bad input is a 400, not a question that costs the teacher's time."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        policy = with_embedder(loaded.policy, embedders.build("precomputed", {"dim": 3}))
        runtime.live.loaded = replace(loaded, policy=policy)
        answer = await client.post("/v1/classify", json={"input": "no vector"})
    assert answer.status_code == 400
    assert "not an array of numbers" in answer.json()["error"]["message"]


class NoScore:
    """An acceptor that can say nothing."""

    def features(self, evidence: Any) -> Vectors:
        return np.zeros((len(evidence.inputs), 1), np.float32)

    def fit(self, features: Any, agreed: Any) -> "NoScore":
        raise NotImplementedError(features, agreed)

    def score(self, features: Vectors) -> Vectors:
        return np.full(len(features), np.nan, np.float32)


async def test_a_score_that_is_not_a_number_is_never_handled(task: MakeTask) -> None:
    """NaN defers even where everything would be accepted, and the answer is valid JSON."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        loaded = runtime.live.loaded
        assert loaded is not None
        accept_all = replace(loaded.policy.certificate, threshold=-np.inf)
        stages = (replace(loaded.policy.stages[0], acceptor=NoScore()),)
        policy = replace(loaded.policy, stages=stages, certificate=accept_all)
        runtime.live.loaded = replace(loaded, policy=policy)
        item = (await client.post("/v1/classify", json={"input": HANDLED})).json()["data"][0]
    assert (item["decision"], item["score"]) == ("deferred", None)


async def test_a_teacher_that_raises_anything_is_a_typed_error_of_that_text(task: MakeTask) -> None:
    """A plugin teacher's bug answers 503 for its text, not 500 for the request."""

    @teachers.register("buggy")
    class Buggy:
        fingerprint = "buggy"

        async def label(self, text: Text) -> Answer:
            if text == DEFERRED:
                raise ZeroDivisionError
            return Answer("red")

        async def close(self) -> None:
            pass

    spec = task(teacher="buggy")
    async with serving(spec) as (client, _):
        items = (await client.post("/v1/classify", json={"input": [DEFERRED, "a"]})).json()["data"]
    assert items[0]["error"]["code"] == "teacher_unavailable"
    assert items[1]["label"] == "red"


async def test_a_full_disk_stops_traces_not_answers(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store takes no rows answers go on and rows wait, counted and told; with room again none is missing."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):

        def full(_: Any) -> int:
            raise StoreError("the disk is full")

        with monkeypatch.context() as disk:
            disk.setattr(runtime.store.traces, "add", full)
            answers = [
                (await client.post("/v1/classify", json={"input": text})).json()["data"][0]
                for text in (HANDLED, DEFERRED)
            ]
            await until_async(lambda: runtime.writer.delayed == 2)
            ready = (await client.get("/readyz")).json()
            health = (await client.get("/healthz")).json()
            exposed = (await client.get("/metrics")).text
        await until_async(lambda: runtime.writer.problem is None)
        after = (await client.get("/readyz")).json()
        assert all(runtime.store.traces.get(answer["trace_id"]) for answer in answers)
    assert [answer["decision"] for answer in answers] == ["handled", "deferred"]
    assert ready["status"] == "ready"
    assert "the disk is full" in ready["problems"][0]
    assert health["status"] == "degraded"
    assert 'tracer_traces_delayed_total{task="colours"} 2.0' in exposed
    assert 'tracer_traces_lost_total{task="colours"} 0.0' in exposed
    assert after["problems"] == []


async def test_a_swap_is_seen_within_a_second_and_requests_in_flight_keep_their_version(task: MakeTask) -> None:
    """Activating a version changes what new requests get, without a restart."""
    spec = task()
    make_version(spec, certified=False)
    async with serving(spec) as (_, runtime):
        (before,) = await runtime.router.route([HANDLED])
        make_version(spec)
        await until_async(lambda: runtime.live.loaded is not None and runtime.live.loaded.number == 2)
        (after,) = await runtime.router.route([HANDLED])
    assert isinstance(before, Decision)
    assert isinstance(after, Decision)
    assert [(d.version, d.kind) for d in (before, after)] == [(1, "deferred"), (2, "handled")]


def _point_at(runtime: Runtime, number: int) -> None:
    """Name the current version past every check, in one step, as a copied folder would."""
    aside = runtime.versions.root / "current.new"
    aside.write_text(f"{number}\n", encoding="ascii")
    aside.replace(runtime.versions.root / "current")


async def test_a_corrupt_version_is_told_and_the_good_one_stays(task: MakeTask) -> None:
    """A version whose bytes changed does not load; the one before it goes on serving."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        number = make_version(spec, activate=False)
        (runtime.versions.folder(number) / "report.html").write_text("changed", encoding="utf-8")
        _point_at(runtime, number)
        await until_async(lambda: runtime.live.problem is not None)
        (result,) = await runtime.router.route([HANDLED])
        health = (await client.get("/healthz")).json()
        exposed = (await client.get("/metrics")).text
    assert isinstance(result, Decision)
    assert (result.kind, result.version) == ("handled", 1)
    assert "report.html was changed" in health["problems"][0]
    assert 'tracer_version_load_failures_total{task="colours"} 1.0' in exposed


async def test_changed_weights_with_matching_checksums_do_not_load(task: MakeTask) -> None:
    """Attack S9: weights and their checksum in the manifest are replaced; the digest in the trace store differs."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        number = make_version(spec, activate=False)
        folder = runtime.versions.folder(number)
        (folder / "report.html").write_text("changed", encoding="utf-8")
        manifest = runtime.versions.manifest(number)
        (folder / "manifest.json").unlink()
        forged = replace(manifest, files=checksums(folder))
        (folder / "manifest.json").write_text(forged.as_json(), encoding="utf-8")
        _point_at(runtime, number)
        await until_async(lambda: runtime.live.problem is not None)
        (result,) = await runtime.router.route([HANDLED])
        health = (await client.get("/healthz")).json()
    assert isinstance(result, Decision)
    assert (result.kind, result.version) == ("handled", 1)
    assert "manifest of version 2 was changed" in health["problems"][0]


async def test_garbage_in_current_does_not_end_a_start(task: MakeTask) -> None:
    """Attack S16: a server starts with an unreadable `current`, defers everything, reports why, and recovers."""
    spec = task()
    make_version(spec)
    current = open_versions(spec).root / "current"
    for garbage in (b"\xff\x00garbage", b"9" * 5_000, b"", b"-1"):
        current.write_bytes(garbage)
        assert "NONE SERVES" in dict(prepare(spec).facts)["version"]
    async with serving(spec) as (client, runtime):
        (result,) = await runtime.router.route([HANDLED])
        assert isinstance(result, Decision)
        assert result.kind == "deferred"
        assert "current" in (await client.get("/healthz")).json()["problems"][0]
        current.write_text("1\n", encoding="ascii")
        await until_async(lambda: runtime.live.loaded is not None)
        (result,) = await runtime.router.route([HANDLED])
        assert isinstance(result, Decision)
        assert result.kind == "handled"


def test_a_version_that_fails_is_not_tried_again_at_once() -> None:
    """Ten looks a second at a version that does not load cost one attempt, not ten."""
    attempts: list[int] = []

    def load(number: int) -> ActiveVersion:
        attempts.append(number)
        raise ArtifactError("corrupt")

    live = VersionLoader(lambda: 7, load, retry_s=1000)
    for _ in range(5):
        live.refresh()
    assert (attempts, live.loaded) == ([7], None)


class Slow:
    """A surrogate that works when it is let, and remembers its batches."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.go, self.entered = inner, threading.Event(), threading.Event()
        self.batches: list[list[Text]] = []
        self.classes_: Labels = inner.classes_

    def fit(self, inputs: Inputs, labels: Labels) -> "Slow":
        raise NotImplementedError(inputs, labels)

    def predict_proba(self, inputs: Inputs) -> Any:
        self.batches.append(list(inputs.texts))
        self.entered.set()
        assert self.go.wait(10)
        return self.inner.predict_proba(inputs)


def _with(policy: Policy, surrogate: Any) -> Policy:
    return replace(policy, stages=(replace(policy.stages[0], surrogate=surrogate),))


@pytest.fixture
def slow(task: MakeTask) -> tuple[Policy, Slow]:
    """A policy whose surrogate waits for permission."""
    policy = make_policy(task())
    surrogate = Slow(policy.surrogate)
    return _with(policy, surrogate), surrogate


async def test_what_queued_while_a_batch_ran_is_the_next_batch(slow: tuple[Policy, Slow]) -> None:
    """The first text starts at once and alone; those that came meanwhile go together."""
    policy, surrogate = slow
    batcher = Batcher()
    first = asyncio.create_task(batcher.judge(policy, ["alone"]))
    await asyncio.to_thread(surrogate.entered.wait, 10)
    others = [asyncio.create_task(batcher.judge(policy, [text])) for text in ("ccc", "a", "bb")]
    await asyncio.sleep(0.05)
    surrogate.go.set()
    await asyncio.gather(first, *others)
    batcher.close()
    assert surrogate.batches == [["alone"], ["a", "bb", "ccc"]]


async def test_lone_texts_go_together_however_long_one_takes(slow: tuple[Policy, Slow]) -> None:
    """Twenty that wait are one batch even where a text takes half a second: one by one they would take longer."""
    policy, surrogate = slow
    batcher = Batcher()
    first = asyncio.create_task(batcher.judge(policy, ["alone"]))
    await asyncio.to_thread(surrogate.entered.wait, 10)
    others = [asyncio.create_task(batcher.judge(policy, [f"text {i}"])) for i in range(20)]
    await asyncio.sleep(0.5)  # which is how long the first one takes
    surrogate.go.set()
    await asyncio.gather(first, *others)
    batcher.close()
    assert [len(batch) for batch in surrogate.batches] == [1, 20]


async def test_a_lone_text_does_not_wait_for_a_big_list(slow: tuple[Policy, Slow]) -> None:
    """A text that comes while a list of thousands is worked on is the very next batch."""
    policy, surrogate = slow
    batcher = Batcher()
    big = [f"text number {i}" for i in range(3_000)]
    bulk = asyncio.create_task(batcher.judge(policy, big))
    await asyncio.to_thread(surrogate.entered.wait, 10)
    single = asyncio.create_task(batcher.judge(policy, ["me first"]))
    await asyncio.sleep(0.05)
    surrogate.go.set()
    await single
    assert not bulk.done()
    verdicts, _ = await bulk
    batcher.close()
    assert surrogate.batches[1] == ["me first"]
    assert max(map(len, surrogate.batches)) <= 256
    assert [v.label for v in verdicts if isinstance(v, Verdict)] == [v.label for v in policy.decide(big)]


async def test_one_callers_lists_share_one_callers_part_of_a_batch(task: MakeTask) -> None:
    """Beside ten lists of one caller, a list of another caller fills half of each batch, and batches are small."""
    policy = make_policy(task())
    surrogate, batcher = Stepwise(policy.surrogate), Batcher()
    policy = _with(policy, surrogate)

    def ask(caller: str, texts: Sequence[Text]) -> "asyncio.Task[tuple[list[MaybeVerdict], BatchTimes]]":
        async def asked() -> tuple[list[MaybeVerdict], BatchTimes]:
            CALLER.set(caller)
            return await batcher.judge(policy, texts)

        return asyncio.create_task(asked())

    asked = [ask("greedy", [f"greedy {n} {i}" for i in range(300)]) for n in range(10)]
    await until_async(lambda: bool(surrogate.batches))
    asked.append(ask("other", [f"other {i}" for i in range(300)]))
    await asyncio.sleep(0.05)
    surrogate.step.release(10_000)
    await asyncio.gather(*asked)
    batcher.close()
    others = [sum(str(text).startswith("other") for text in batch) for batch in surrogate.batches]
    both = [(count, len(batch)) for count, batch in zip(others, surrogate.batches, strict=True) if count]
    assert all(count * 2 >= size - 1 for count, size in both[:-1])
    assert len(both) < len(surrogate.batches)


class Stepwise(Slow):
    """Does one batch each time that it is let."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.step = threading.Semaphore(0)

    def predict_proba(self, inputs: Inputs) -> Any:
        self.batches.append(list(inputs.texts))
        assert self.step.acquire(timeout=10)
        return self.inner.predict_proba(inputs)


async def test_a_list_goes_on_beside_an_endless_row_of_lone_texts(task: MakeTask) -> None:
    """Lone texts go ahead of a list in every other batch at most, and share the others with it."""
    policy = make_policy(task())
    surrogate, batcher = Stepwise(policy.surrogate), Batcher()
    policy = _with(policy, surrogate)
    asked = [asyncio.create_task(batcher.judge(policy, [f"text number {i}" for i in range(300)]))]
    for turn in range(4):
        await until_async(lambda turn=turn: len(surrogate.batches) > turn)  # type: ignore[misc]
        asked.append(asyncio.create_task(batcher.judge(policy, [f"alone {turn}"])))
        await asyncio.sleep(0.02)
        surrogate.step.release()
    surrogate.step.release(300)
    await asyncio.gather(*asked)
    batcher.close()
    assert surrogate.batches[1] == ["alone 0"]
    assert {"alone 1"} < {*surrogate.batches[2]}
    assert surrogate.batches[3] == ["alone 2"]
    assert {"alone 3"} < {*surrogate.batches[4]}


async def test_others_are_answered_while_a_long_list_is_finished(task: MakeTask) -> None:
    """The rows of a list are made a part at a time: another task sees them grow in number."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        answer = asyncio.create_task(client.post("/v1/classify", json={"input": BLUE * 40}))
        seen = set()
        while not answer.done():
            seen.add(len(runtime.writer._items))
            await asyncio.sleep(0)
        assert len((await answer).json()["data"]) == 40 * len(BLUE)
    assert len(seen) > 3


async def test_a_request_too_many_is_refused_at_once(slow: tuple[Policy, Slow]) -> None:
    """Memory and waiting time are bounded: beyond the capacity the answer is 503, and what waits is still answered."""
    policy, surrogate = slow
    batcher = Batcher(capacity=4)
    first = asyncio.create_task(batcher.judge(policy, ["a", "b", "c"]))
    await asyncio.to_thread(surrogate.entered.wait, 10)
    with pytest.raises(OverloadedError, match="3 texts of this caller are waiting"):
        await batcher.judge(policy, ["d", "e"])
    CALLER.set("another")
    other = asyncio.create_task(batcher.judge(policy, ["d", "e"]))
    await asyncio.sleep(0)
    surrogate.go.set()
    assert None not in (await other)[0]
    assert None not in (await first)[0]
    assert None not in (await batcher.judge(policy, ["d"] * 9))[0]  # an empty queue takes any list
    batcher.close()


class Noting:
    """An embedder that notes what it was asked at once."""

    trainable = False

    def __init__(self, inner: Any) -> None:
        self.inner, self.fingerprint = inner, inner.fingerprint
        self.batches: list[list[Text]] = []

    def fit(self, texts: Sequence[Text]) -> "Noting":
        raise NotImplementedError(texts)

    def embed(self, texts: Sequence[Text]) -> Any:
        self.batches.append(list(texts))
        return self.inner.embed(texts)


async def test_long_texts_are_not_padded_beside_short_ones(task: MakeTask) -> None:
    """The embedder's batches are cut so that rows times longest text stays bounded; the policy decides once on all."""
    policy = make_policy(task())
    embedder, surrogate = Noting(policy.view.embedder), Slow(policy.surrogate)
    surrogate.go.set()
    batcher = Batcher()
    texts = ["x" * 10_000, "short", "y" * 10_000, "tiny"]
    verdicts, _ = await batcher.judge(with_embedder(_with(policy, surrogate), embedder), texts)
    batcher.close()
    assert embedder.batches == [["tiny", "short"], ["x" * 10_000], ["y" * 10_000]]
    assert surrogate.batches == [["tiny", "short", "x" * 10_000, "y" * 10_000]]
    assert [v.label for v in verdicts if isinstance(v, Verdict)] == [v.label for v in policy.decide(texts)]


async def test_a_stopping_service_writes_what_is_queued(task: MakeTask) -> None:
    """Rows of handled requests that nobody waited for are on disk after the shutdown."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (_, runtime):
        results = await runtime.router.route(BLUE)
    async with serving(spec) as (_, runtime):
        assert runtime.store.tallies.counts().total.handled == len(results) == len(BLUE)


async def test_a_text_asked_again_is_decided_from_memory_and_audited_anew(task: MakeTask) -> None:
    """The policy sees an exact text once per version; each call of it is a row, a draw and, by chance, an audit."""
    spec = task(traces={"audit_rate": 0.5})
    make_version(spec)
    async with serving(spec) as (client, runtime):
        counting = count_embeds(runtime)
        first = await runtime.router.route([HANDLED])
        again = [(await runtime.router.route([HANDLED]))[0] for _ in range(60)]
        assert counting.asked == 1
        await runtime.router.audits.close(10)
        runtime.writer.close()
        rows = [runtime.store.traces.get(result.trace_id) for result in again if isinstance(result, Decision)]
        exposed = (await client.get("/metrics")).text
    assert isinstance(first[0], Decision)
    assert {(r.label, r.kind, r.version) for r in again if isinstance(r, Decision)} == {("red", "handled", 1)}
    assert len({row.u for row in rows if row is not None}) == 60
    assert 10 < sum(row.label_source == "audit" for row in rows if row is not None) < 50
    assert 'tracer_decision_cache_total{result="hit",task="colours"} 60.0' in exposed
    assert 'tracer_decision_cache_total{result="miss",task="colours"} 1.0' in exposed


async def test_a_swap_forgets_what_was_decided(task: MakeTask) -> None:
    """Another version decides anew, though it was asked about the text before."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (_, runtime):
        await runtime.router.route([HANDLED])
        make_version(spec, certified=False)
        await until_async(lambda: runtime.live.loaded is not None and runtime.live.loaded.number == 2)
        (result,) = await runtime.router.route([HANDLED])
    assert isinstance(result, Decision)
    assert (result.version, result.reason) == (2, "no_certificate")


async def test_what_is_remembered_is_bounded(task: MakeTask) -> None:
    """The least recently asked texts are forgotten, long ones are not kept, and 0 keeps none."""
    spec = task(server={"decision_cache": 3})
    make_version(spec)
    async with serving(spec) as (_, runtime):
        await runtime.router.route([*RED, HANDLED + " wine" * 1_000])
        assert runtime.live.loaded is not None
        assert len(runtime.live.loaded.decided) == 3
    async with serving(task(server={"decision_cache": 0})) as (_, runtime):
        counting = count_embeds(runtime)
        for _ in range(3):
            await runtime.router.route([HANDLED])
        assert counting.asked == 3


class Counting:
    """An embedder that counts the texts it is asked about."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.asked = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def embed(self, texts: Any) -> Any:
        self.asked += len(texts)
        return self.inner.embed(texts)


def count_embeds(runtime: Runtime) -> Counting:
    """Count what the version that serves embeds from now on."""
    assert runtime.live.loaded is not None
    counting = Counting(runtime.live.loaded.policy.view.embedder)
    policy = with_embedder(runtime.live.loaded.policy, counting)
    runtime.live.loaded = replace(runtime.live.loaded, policy=policy)
    return counting
