"""Teachers as a YAML makes them, pointed at the stub."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._llm_teacher import LlmTeacher

KNOWN = {
    "Where is my card?": "card_arrival",
    "My card was stolen": "lost_card",
    "Why was I charged twice?": "double_charge",
}
LABELS = tuple(sorted(KNOWN.values()))
KEY = "sk-test-0123456789abcdef"

MakeTeacher = Callable[..., Any]


@pytest.fixture
def teacher(stub_llm: StubLLM) -> MakeTeacher:
    """Return a context manager that makes a teacher of the stub, ``openai`` or another, and closes it."""
    stub_llm.labels = KNOWN

    @asynccontextmanager
    async def make(kind: str = "openai", **params: Any) -> AsyncIterator[LlmTeacher]:
        given = {"base_url": stub_llm.url, "model": "stub-1", "api_key": KEY, "labels": LABELS, **params}
        made = teachers.build(kind, given)
        assert isinstance(made, LlmTeacher)
        made.retry.base_s = 0.001  # pauses of milliseconds, the rules stay
        try:
            yield made
        finally:
            await made.close()

    return make
