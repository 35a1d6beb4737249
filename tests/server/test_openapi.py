"""The service against its own document, by requests that schemathesis makes up."""

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.chat.conftest import listening
from tests.server.worlds import make_version
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.config.server import ADMIN_KEY as KEY
from tracer_serve.server.app import ROUTES

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MakeTask = Callable[..., Task]


def run(task: MakeTask, stub: StubLLM, examples: int) -> int:
    """Send requests, valid and not, to every operation; return how many operations there are."""
    spec = task(
        server={"forward": False}
    )  # what is passed on is answered by another server, of which no document tells
    make_version(spec)
    stub.default = "blue"
    with listening(spec) as url:
        schema = schemathesis.openapi.from_url(f"{url.removesuffix('/v1')}/docs.json")
        operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
        for operation in operations:

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def check(case: Any) -> None:
                case.call_and_validate(checks=CHECKS)

            check()
    return len(operations)


def test_no_request_gets_what_is_not_documented(
    task: MakeTask, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No 5xx, no undocumented status, content type or shape."""
    monkeypatch.delenv(KEY, raising=False)
    assert run(task, stub_llm, examples=4) == len(ROUTES) - 1  # all but the document itself


@pytest.mark.slow
def test_nor_do_many_requests(task: MakeTask, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with two hundred for each operation."""
    monkeypatch.delenv(KEY, raising=False)
    assert run(task, stub_llm, examples=200) == len(ROUTES) - 1  # all but the document itself
