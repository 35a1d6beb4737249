"""Teachers as a YAML makes them, pointed at the stub."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers.openai import OpenAI

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
    """Return a context manager that makes an ``openai`` teacher of the stub and closes it."""
    stub_llm.labels = KNOWN

    @asynccontextmanager
    async def make(**params: Any) -> AsyncIterator[OpenAI]:
        given = {"base_url": stub_llm.url, "model": "stub-1", "api_key": KEY, "labels": LABELS, **params}
        made = teachers.build("openai", given)
        assert isinstance(made, OpenAI)
        made.retry.base_s = 0.001  # pauses of milliseconds, the rules stay
        try:
            yield made
        finally:
            await made.close()

    return make
