"""A task that is served in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.worlds import make_task
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task


@pytest.fixture
def task(tmp_path: Path, stub_llm: StubLLM) -> Callable[..., Task]:
    """Makes a task; keywords are spec fields."""

    def make(**spec: Any) -> Task:
        return make_task(tmp_path, stub_llm, **spec)

    return make
