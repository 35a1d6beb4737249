"""Asking a teacher about many texts: bounded, in order, and not at all once it is down."""

import asyncio

import pytest

from tracer_serve.components.teachers._ask_many import BoundedCalls, ask_many
from tracer_serve.errors import TeacherError
from tracer_serve.types import Answer, Text

pytestmark = pytest.mark.anyio


class Scripted:
    """A teacher that answers or fails by the text, and counts its calls."""

    fingerprint = "scripted"

    def __init__(self) -> None:
        self.asked: list[Text] = []
        self.under_way = self.peak = 0

    async def label(self, text: Text) -> Answer:
        self.asked.append(text)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if text in ("unavailable", "refused"):
            raise TeacherError("no", reason=text)
        return Answer(str(text))

    async def close(self) -> None:
        pass


async def test_answers_keep_the_order_and_calls_the_bound() -> None:
    """Every text gets its own answer or error, with at most three calls under way."""
    teacher, done = Scripted(), list[None]()
    texts = ["a", "refused", "b", "c", "unavailable", "d"]
    answers = await ask_many(teacher, texts, BoundedCalls(3), lambda: done.append(None))
    assert [a.label if isinstance(a, Answer) else a.reason for a in answers] == texts
    assert (teacher.peak, len(done)) == (3, 6)


async def test_after_outages_in_a_row_no_further_text_is_asked() -> None:
    """Two outages in a row stop a list of two at a time; a refusal is about its text and stops nothing."""
    teacher, calls = Scripted(), BoundedCalls(2)
    await ask_many(teacher, ["refused"] * 5 + ["a"], calls)
    assert calls.down is None
    teacher.asked.clear()
    answers = await ask_many(teacher, ["unavailable", "a", *["unavailable"] * 20], calls)
    assert calls.down is not None
    assert len(teacher.asked) < 6
    assert all(isinstance(answer, TeacherError) for answer in answers[2:])
