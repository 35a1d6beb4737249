"""The teacher under faults, over real HTTP through the stub."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.components.teachers.conftest import KEY, KNOWN, MakeTeacher
from tests.infra.resilience.conftest import FakeTime
from tests.support.stub_llm import Faults, StubLLM, serve
from tracer_serve.components.teachers.openai import OpenAI
from tracer_serve.errors import TeacherError

pytestmark = pytest.mark.anyio
REASONS = {"timeout", "rate_limited", "unavailable", "rejected", "unknown_label", "circuit_open", "overloaded"}


async def until_asked(stub: StubLLM, count: int = 1) -> None:
    """Wait until the stub has this many requests."""
    async with asyncio.timeout(20):
        while stub.count < count:  # noqa: ASYNC110  # counted in another thread
            await asyncio.sleep(0.005)


def states(llm: OpenAI) -> list[str]:
    return [state for _, state in llm.health.breakers]


def fake_time(llm: OpenAI) -> FakeTime:
    """Let pauses and breakers pass in no time."""
    clock = FakeTime()
    clock.now = time.monotonic()
    llm.retry.clock, llm.retry.sleep = clock, clock.sleep
    for endpoint in llm.endpoints:
        endpoint.breaker.clock = clock
    return clock


@pytest.mark.parametrize(
    "fault", ["408", "429", "500", "502", "503", "reset", "cut", "invalid_json", "html", "empty", "loris"]
)
async def test_a_passing_fault_is_survived(stub_llm: StubLLM, teacher: MakeTeacher, fault: str) -> None:
    """After two faults of any kind the label comes all the same."""
    stub_llm.script.extend([fault, fault])
    async with teacher(timeout_s=0.5 if fault == "loris" else 20) as llm:
        assert (await llm.label("Where is my card?")).label == "card_arrival"
        assert llm.health.errors == {}
    assert stub_llm.count == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("loris", "timeout"),
        ("stall", "timeout"),
        ("429", "rate_limited"),
        ("500", "unavailable"),
        ("reset", "unavailable"),
        ("cut", "unavailable"),
        ("quota", "rejected"),
        ("400", "rejected"),
        ("401", "rejected"),
        ("302", "rejected"),
    ],
)
async def test_a_lasting_fault_has_its_reason(stub_llm: StubLLM, teacher: MakeTeacher, fault: str, reason: str) -> None:
    """When retries do not help the error says why, in a bounded word, and only what may pass was retried."""
    stub_llm.script.extend([fault] * 2)
    async with teacher(retries=1, timeout_s=0.3) as llm:
        with pytest.raises(TeacherError) as caught:
            await llm.label("Where is my card?")
    assert caught.value.reason == reason
    assert stub_llm.count == (1 if reason == "rejected" else 2)


async def test_an_endpoint_that_is_not_there(teacher: MakeTeacher) -> None:
    """A refused connection is an error that names the host."""
    async with teacher(base_url="http://127.0.0.1:9/v1", retries=0) as llm:
        with pytest.raises(TeacherError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
            await llm.label("x")
    assert caught.value.reason == "unavailable"


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_honoured(stub_llm: StubLLM, teacher: MakeTeacher, form: str) -> None:
    """A 429's Retry-After, in either form, is the least pause before the next try."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=31), usegmt=True)
    stub_llm.faults.retry_after = "31" if form == "seconds" else date
    stub_llm.script.append("429")
    async with teacher() as llm:
        clock = fake_time(llm)
        assert (await llm.label("Where is my card?")).label == "card_arrival"
    (pause,) = clock.slept
    assert 15 < pause <= 31


async def test_retry_after_beyond_the_deadline(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """A wait that the deadline does not allow is not begun: the caller learns at once how long it would be."""
    stub_llm.faults.retry_after = "3600"
    stub_llm.script.append("429")
    async with teacher(deadline_s=60) as llm:
        with pytest.raises(TeacherError) as caught:
            await llm.label("Where is my card?")
    assert (caught.value.reason, caught.value.retry_after_s, stub_llm.count) == ("rate_limited", 3600.0, 1)


@pytest.mark.parametrize("where", ["try", "queue"])
async def test_the_deadline_ends_everything(stub_llm: StubLLM, teacher: MakeTeacher, where: str) -> None:
    """However patient a single try is, the call ends at its deadline, in the queue as well."""
    stub_llm.hold()
    async with teacher(deadline_s=0.2, timeout_s=600, max_concurrency=1) as llm:
        texts = ["Where is my card?"] if where == "try" else list(KNOWN)
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*map(llm.label, texts), return_exceptions=True)
        assert {getattr(outcome, "reason", None) for outcome in outcomes} == {"timeout"}
        assert (llm.health.in_flight, llm.health.waiting) == (0, 0)
        assert states(llm) == ["closed"]


async def test_the_breaker_opens_half_opens_and_closes(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """After outages in a row nothing is sent; then one probe at a time decides."""
    stub_llm.script.extend(["500", "503", "reset", "500"])
    async with teacher(retries=0, breaker={"failures": 3, "open_s": 30}) as llm:
        clock = fake_time(llm)

        async def reason() -> str:
            outcomes = await asyncio.gather(llm.label("Where is my card?"), return_exceptions=True)
            return str(getattr(outcomes[0], "reason", None) or getattr(outcomes[0], "label", None))

        assert [await reason() for _ in range(5)] == ["unavailable"] * 3 + ["circuit_open"] * 2
        assert stub_llm.count == 3
        clock.now += 30
        assert states(llm) == ["half_open"]
        assert [await reason() for _ in range(2)] == ["unavailable", "circuit_open"]
        clock.now += 30
        assert await reason() == "card_arrival"
        assert states(llm) == ["closed"]
    assert stub_llm.count == 5


async def test_fallbacks_in_order(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """When the first endpoint fails the next is asked at once, under its own name, and with its own key only."""
    stub_llm.script.extend(["500", "401"])
    with serve(StubLLM(KNOWN)) as second:
        fallback = {"base_url": second.url, "model": "deployment-7", "api_key": "second-key-123456"}
        async with teacher(fallbacks=[fallback], cache={"size": 0}) as llm:
            clock = fake_time(llm)
            labels = [(await llm.label("Where is my card?")).label for _ in range(3)]
            assert labels == ["card_arrival"] * 3
            assert clock.slept == []
        assert (stub_llm.count, second.count) == (3, 2)
        request = second.requests[0]
    assert request["body"]["model"] == "deployment-7"
    assert request["headers"]["authorization"] == "Bearer second-key-123456"
    assert KEY not in str(second.requests)


async def test_identical_texts_in_flight_are_asked_once(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Ten callers of one text make one request and pay once; those cancelled meanwhile take nothing from the rest."""
    stub_llm.hold()
    price = {"prompt_per_1m": 1.0, "completion_per_1m": 1.0}
    async with teacher(price=price) as llm:
        calls = [asyncio.create_task(llm.label("My card was stolen")) for _ in range(10)]
        await until_asked(stub_llm)
        for call in calls[:3]:
            call.cancel()
        await asyncio.sleep(0)
        stub_llm.release.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert [answer.label for answer in answers] == ["lost_card"] * 7
        assert sum(answer.cost for answer in answers) == llm.health.cost > 0
        assert llm.health.coalesced == 6
    assert stub_llm.count == 1


async def test_known_texts_are_not_asked_again(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """An answer is remembered by exact text and costs nothing the second time; errors are not remembered."""
    stub_llm.script.append("nonsense")
    async with teacher() as llm:
        with pytest.raises(TeacherError):
            await llm.label("Where is my card?")
        first, again = [await llm.label("Where is my card?") for _ in range(2)]
        assert (first.label, again.label) == ("card_arrival", "card_arrival")
        assert (again.usage, again.cost, llm.health.cached) == ({}, 0.0, 1)
        assert stub_llm.count == 2
        await llm.label("where is my card?  Where is my card?")
    assert stub_llm.count == 3


@pytest.mark.parametrize("temperature", [0.7, None])
async def test_samples_are_never_shared(stub_llm: StubLLM, teacher: MakeTeacher, temperature: float | None) -> None:
    """Where the model may answer differently each time, neither cache nor coalescing repeats an answer."""
    async with teacher(temperature=temperature) as llm:
        await asyncio.gather(*(llm.label("Where is my card?") for _ in range(3)))
        await llm.label("Where is my card?")
    assert stub_llm.count == 4


async def test_the_queue_is_bounded(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Of ten texts two are in flight, three wait and five are refused at once; the five get their labels."""
    stub_llm.hold()
    stub_llm.default = "lost_card"
    async with teacher(max_concurrency=2, queue=3) as llm:
        calls = [asyncio.create_task(llm.label(f"text {i}")) for i in range(10)]
        await until_asked(stub_llm, 2)
        assert (llm.health.in_flight, llm.health.waiting, llm.health.errors) == (2, 3, {"overloaded": 5})
        stub_llm.release.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(outcome, TeacherError) for outcome in outcomes) == 5
    assert (stub_llm.count, stub_llm.peak) == (5, 2)


async def test_cancellation_leaves_no_trace(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """A cancelled call frees its place and its connection, counts as no failure, and the next one works."""
    stub_llm.hold()
    async with teacher(max_concurrency=1, breaker={"failures": 1}) as llm:
        for count in range(1, 4):
            call = asyncio.create_task(llm.label("Where is my card?"))
            await until_asked(stub_llm, count)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        stub_llm.release.set()
        assert (await llm.label("Where is my card?")).label == "card_arrival"
        assert llm.health.errors == {}


async def test_a_closed_teacher_says_so(teacher: MakeTeacher) -> None:
    """Asking after `close` is a typed error like any other."""
    async with teacher(retries=0) as llm:
        await llm.close()
        with pytest.raises(TeacherError, match="closed"):
            await llm.label("x")


async def storm(stub: StubLLM, teacher: MakeTeacher, texts: int, deadline_s: float, faults: Faults) -> tuple[int, int]:
    """Ask many texts under faults; return how many got a label and how many an error, having checked each."""
    truth = {f"message number {i} of many": f"label_{i % 7}" for i in range(texts)}
    async with teacher(
        labels=tuple(sorted(set(truth.values()))), deadline_s=deadline_s, timeout_s=1.0, retries=6, queue=texts
    ) as llm:
        stub.labels = truth
        stub.use(faults)

        # far beyond the deadline: a call that is ended by this one has none of its own
        calls = [asyncio.wait_for(llm.label(text), deadline_s + 20) for text in truth]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert {getattr(error, "reason", repr(error)) for error in errors} <= REASONS
        labels = {text: o.label for text, o in zip(truth, outcomes, strict=True) if not isinstance(o, BaseException)}
        assert labels.items() <= truth.items()
        assert (llm.health.in_flight, llm.health.waiting) == (0, 0)
        assert sum(llm.health.errors.values()) == len(errors)
    return len(labels), len(errors)


async def test_under_faults_every_call_ends_well(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Under 30 % faults every call ends in the right label or a typed error, most of them in the label."""
    kinds = ("429", "500", "503", "reset", "cut", "invalid_json", "nonsense")
    right, wrong = await storm(stub_llm, teacher, 150, 15.0, Faults(share=0.3, kinds=kinds, seed=1))
    assert right > wrong
    assert stub_llm.count > 160


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_under_worse_faults_every_call_ends_well(stub_llm: StubLLM, teacher: MakeTeacher, seed: int) -> None:
    """The same with stalled and dripping connections among the faults, and more calls than the deadline allows."""
    kinds = ("429", "500", "reset", "cut", "invalid_json", "html", "empty", "nonsense", "refusal", "loris", "stall")
    right, wrong = await storm(stub_llm, teacher, 600, 8.0, Faults(share=0.3, kinds=kinds, seed=seed))
    assert right > 0
    assert wrong > 0
