"""Teachers by batch APIs, against a stub that implements OpenAI's and Anthropic's protocols."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tests.support.waiting import until_async
from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._batch.journal import BatchJournal
from tracer_serve.components.teachers._batch.teacher import PRICE_SHARE, BatchTeacher
from tracer_serve.components.teachers._spend_limit import SPENT, share_spend
from tracer_serve.errors import BudgetError, PluginError, TeacherError
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.types import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("api", ["openai", "anthropic"])]
TEXTS = [f"text {place} of many" for place in range(40)]
PRICE = {"currency": "USD", "prompt_per_1m": 2.0, "completion_per_1m": 8.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    opened = open_store(tmp_path / "traces.db", "colours")
    yield opened
    opened.close()


def make(api: str, stub: StubLLM, store: TraceStore, job: str = "job", **params: Any) -> BatchTeacher:
    stub.labels = {text: ("red", "blue")[place % 2] for place, text in enumerate(TEXTS)}
    given = {"model": "stub-1", "base_url": stub.url, "price": PRICE, **params}
    teacher = teachers.build(api, given, {"labels": ("red", "blue")})
    return BatchTeacher(teacher, BatchJournal(store.values, job), linger_s=0.01)


async def ask(teacher: BatchTeacher, texts: list[str] = TEXTS) -> list[Answer | BaseException]:
    """Ask about all texts at once."""
    try:
        return await asyncio.gather(*map(teacher.label, texts), return_exceptions=True)
    finally:
        await teacher.close()


async def test_every_text_is_answered_once_at_half_the_price(api: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """Equal texts are one request; each answer has its own usage, and half the cost of a direct call."""
    teacher = make(api, stub_llm, store)
    answers = await ask(teacher, [*TEXTS, *TEXTS])
    assert stub_llm.batches.submitted == [len(TEXTS)]
    assert set(stub_llm.batches.answered.values()) == {1}
    for place, answer in enumerate(answers):
        assert isinstance(answer, Answer)
        assert answer.label == ("red", "blue")[place % 2]
        full = 2.0 * answer.usage.get("prompt_tokens", 0) + 8.0 * answer.usage.get("completion_tokens", 0)
        assert answer.cost == pytest.approx(PRICE_SHARE * full / 1e6)
        assert (answer.cost > 0) == (place < len(TEXTS))


async def test_a_batch_counts_in_the_budget_and_none_follows(api: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """What a batch costs is added to the day's spend; once the budget is spent, no further batch is submitted."""
    first, second = (make(api, stub_llm, store, job, budget={"per_day": 1e-5}) for job in ("first", "second"))
    for teacher in (first, second):
        share_spend(teacher._teacher, store.values)
    answers = await ask(first)
    refused = await ask(second, ["another text"])
    assert stub_llm.batches.submitted == [40]
    assert store.values.get(SPENT)["spent"] == pytest.approx(sum(getattr(answer, "cost") for answer in answers))  # noqa: B009
    assert isinstance(refused[0], BudgetError)


@pytest.mark.parametrize("fate", ["expired", "500"])
async def test_what_expires_or_fails_is_asked_again_and_nothing_else(
    api: str, fate: str, stub_llm: StubLLM, store: TraceStore
) -> None:
    """A third of the first batch is not answered: the second one has that third."""
    stub_llm.batches.fate = lambda batch, row: fate if batch == 0 and row % 3 == 0 else "ok"
    answers = await ask(make(api, stub_llm, store))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert stub_llm.batches.submitted == [40, 14]
    assert stub_llm.batches.answered.total() == len(TEXTS) == len(stub_llm.batches.answered)


@pytest.mark.parametrize("fate", ["400", "cancelled"])
async def test_a_refused_text_is_an_error_of_its_own(api: str, fate: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """It is not asked again, nor is one whose batch a person cancelled; the others have their answers."""
    stub_llm.batches.fate = lambda _, row: fate if row == 0 else "ok"
    refused, *others = await ask(make(api, stub_llm, store))
    assert isinstance(refused, TeacherError)
    assert refused.reason == "rejected"
    assert all(isinstance(answer, Answer) for answer in others)
    assert stub_llm.batches.submitted == [40]


async def test_a_batch_that_never_answers_is_given_up(api: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """After three batches the texts are errors that name the provider and the cause."""
    stub_llm.batches.fate, stub_llm.batches.looks = lambda *_: "expired", 1
    (error,) = await ask(make(api, stub_llm, store), TEXTS[:1])
    assert isinstance(error, TeacherError)
    assert (error.reason, "expired" in str(error)) == ("unavailable", True)
    assert stub_llm.batches.submitted == [1, 1, 1]


async def test_interrupted_it_goes_on_with_the_same_batch(api: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """A process that ends while a batch is under way costs nothing: the next one reads the results."""
    stub_llm.batches.looks = 10_000
    first = make(api, stub_llm, store)
    asked = asyncio.create_task(ask(first))
    await until_async(lambda: stub_llm.batches.submitted and store.values.get("teacher_batches")[0]["batch"])
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    stub_llm.batches.looks = 0
    second = make(api, stub_llm, store)
    answers = await ask(second)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert stub_llm.batches.submitted == [40]
    second.finish()
    assert store.values.get("teacher_batches") is None


async def test_a_submission_without_an_answer_is_looked_up(api: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """The API received the batch but answered 502: it is found, not submitted twice."""
    stub_llm.batches.lose = 1
    answers = await ask(make(api, stub_llm, store))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert stub_llm.batches.submitted == [40]


async def test_killed_between_submission_and_note_it_finds_its_batch(
    api: str, stub_llm: StubLLM, store: TraceStore
) -> None:
    """The journal has the intention only; an intention that was never carried out is dropped."""
    stub_llm.batches.looks = 1
    await ask(make(api, stub_llm, store))
    (entry,) = store.values.get("teacher_batches")
    never = {**entry, "mark": "never", "batch": None, "created": "2999-01-01T00:00:00+00:00", "ids": entry["ids"][:3]}
    store.values.put("teacher_batches", [{**entry, "batch": None}, never])
    answers = await ask(make(api, stub_llm, store))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert stub_llm.batches.submitted == [40]


async def test_another_job_asks_for_itself(api: str, stub_llm: StubLLM, store: TraceStore) -> None:
    """A check of the teacher's noise must not read an earlier job's answers."""
    stub_llm.batches.looks = 1
    await ask(make(api, stub_llm, store))
    await ask(make(api, stub_llm, store, "another"))
    assert stub_llm.batches.submitted == [40, 40]


async def test_a_teacher_without_a_batch_api_or_a_key_of_its_own_is_refused(
    api: str, stub_llm: StubLLM, store: TraceStore
) -> None:
    """The error says what is missing."""
    with pytest.raises(PluginError, match="api_key"):
        make(api, stub_llm, store, api_key="pass_through")
    if api == "openai":
        with pytest.raises(PluginError, match="no batch API"):
            make(api, stub_llm, store, api_version="2025-01-01")
