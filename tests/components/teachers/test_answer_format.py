"""``response: auto`` finds out which structured output an endpoint takes, and Azure's way of being asked."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM

from .conftest import KEY

pytestmark = pytest.mark.anyio
MakeTeacher = Callable[..., Any]
TEXTS = ["Where is my card?", "My card was stolen", "Why was I charged twice?"]


def asked(stub: StubLLM) -> list[str]:
    """The format of each request."""
    bodies = [seen["body"] for seen in stub.requests]
    return ["tool" if "tools" in b else b.get("response_format", {}).get("type", "label") for b in bodies]


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "tool", "label"])
async def test_every_structured_output_gives_labels(stub_llm: StubLLM, teacher: MakeTeacher, mode: str) -> None:
    """A mode that is given is the only one that is asked for."""
    async with teacher(response=mode) as llm:
        assert (await llm.label(TEXTS[0])).label == "card_arrival"
    assert asked(stub_llm) == [mode]


@pytest.mark.parametrize("status", [400, 422, 501])
@pytest.mark.parametrize(
    ("formats", "tried"),
    [
        (("json_schema", "json_object", "tool"), ["json_schema"]),
        (("json_object", "tool"), ["json_schema", "json_object"]),
        (("tool",), ["json_schema", "json_object", "tool"]),
        ((), ["json_schema", "json_object", "tool", "label"]),
    ],
)
async def test_auto_finds_out_once_and_remembers(
    stub_llm: StubLLM, teacher: MakeTeacher, formats: tuple[str, ...], tried: list[str], status: int
) -> None:
    """The strictest format that the endpoint takes is found with the first text; no other is asked for again."""
    stub_llm.formats, stub_llm.unsupported = formats, status
    async with teacher(response="auto", breaker={"failures": 1}, retries=0) as llm:
        labels = [(await llm.label(text)).label for text in TEXTS]
        assert llm.health.breakers[0][1] == "closed"
        assert llm.health.errors == {}
        own = llm.request("x")
    assert labels == ["card_arrival", "lost_card", "double_charge"]
    assert asked(stub_llm) == [*tried, tried[-1], tried[-1]]
    assert ("tools" in own) == (tried[-1] == "tool")


@pytest.mark.parametrize("unsupported", [500, 0])
async def test_a_500_or_an_ignored_format_counts_the_second_time(
    stub_llm: StubLLM, teacher: MakeTeacher, unsupported: int
) -> None:
    """It may be an outage of a moment, or one answer's fault; the breaker stays closed."""
    stub_llm.formats, stub_llm.unsupported = ("json_object",), unsupported
    async with teacher(response="auto", breaker={"failures": 1}, retries=0) as llm:
        for text in TEXTS:
            await llm.label(text)
        assert llm.health.breakers[0][1] == "closed"
    assert asked(stub_llm) == ["json_schema", "json_object", "json_schema", "json_object", "json_object"]


async def test_an_outage_of_a_moment_is_no_missing_format(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """After one 500 the schema is tried again, and kept."""
    stub_llm.script.append("500")
    async with teacher(response="auto", retries=0) as llm:
        for text in TEXTS:
            await llm.label(text)
    assert asked(stub_llm) == ["json_schema", "json_object", "json_schema", "json_schema"]


@pytest.mark.parametrize("fault", ["401", "503", "429", "reset"])
async def test_other_failures_say_nothing_about_formats(stub_llm: StubLLM, teacher: MakeTeacher, fault: str) -> None:
    """A wrong key, an overload or a broken connection is the call's own error at once."""
    stub_llm.script.append(fault)
    async with teacher(response="auto", retries=0) as llm:
        with pytest.raises(Exception, match=r"."):
            await llm.label(TEXTS[0])
        assert (await llm.label(TEXTS[0])).label == "card_arrival"
    assert asked(stub_llm)[-1] == "json_schema"
    assert stub_llm.count == 2


async def test_an_endpoint_that_is_down_opens_the_breaker(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """When every format fails it is an outage, one for each call."""
    stub_llm.script.extend(["500"] * 8)
    async with teacher(response="auto", breaker={"failures": 2}, retries=0) as llm:
        for text in TEXTS[:2]:
            with pytest.raises(Exception, match="500"):
                await llm.label(text)
        assert llm.health.breakers[0][1] == "open"


async def test_azure_gets_deployment_version_and_key_in_its_places(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """The deployment is in the path, the version in the query, the key in ``api-key``; a fallback may be one too."""
    root = stub_llm.url.removesuffix("/v1")
    async with teacher(base_url=root, api_version="2024-10-21", model="my deployment", response="json_schema") as llm:
        assert (await llm.label(TEXTS[0])).label == "card_arrival"
    (seen,) = stub_llm.requests
    assert seen["path"] == "/openai/deployments/my deployment/chat/completions"
    assert seen["headers"]["api-key"] == KEY
    assert "authorization" not in seen["headers"]
    stub_llm.script.append("500")
    azure = {"base_url": root, "api_version": "2024-10-21", "api_key": KEY}
    async with teacher(fallbacks=[azure], retries=0) as llm:
        assert (await llm.label(TEXTS[0])).label == "card_arrival"
    assert stub_llm.requests[-1]["path"] == "/openai/deployments/stub-1/chat/completions"
