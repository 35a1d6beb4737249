"""Routes of the endpoint that are none of ours: passed on as they are, or refused clearly."""

from collections.abc import Callable

import httpx
import pytest
from openai import AsyncOpenAI

from tests.server.chat.conftest import listening
from tests.server.worlds import serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.server.chat.forward import is_plain
from tracer_serve.server.routes.response_models import ErrorBody

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]


async def test_embeddings_come_from_upstream_with_the_teachers_key(
    task: MakeTask, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's own client gets them; path, query and body arrive as they were, the caller's key does not."""
    monkeypatch.setenv("UPSTREAM_KEY", "sk-of-the-operator")
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "api_key": "${UPSTREAM_KEY}"}
    with listening(task(teacher=teacher)) as url:
        async with AsyncOpenAI(base_url=url, api_key="sk-of-the-caller") as client:
            found = await client.embeddings.create(model="any", input=["one", "two"])
    assert len(found.data) == 2
    assert stub_llm.requests[0]["path"] == "/v1/embeddings"
    assert stub_llm.requests[0]["headers"]["authorization"] == "Bearer sk-of-the-operator"


async def test_any_body_and_any_stream_pass(task: MakeTask, stub_llm: StubLLM) -> None:
    """What is not JSON arrives byte by byte; an answer comes as it is written."""
    with listening(task()) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            files = {"file": ("a.bin", b"\x00\xff" * 10)}
            unknown = await client.post("/audio/transcriptions", files=files)
            stub_llm.script.append("loris")
            async with client.stream("POST", "/responses", json={"stream": True}) as slow:
                assert await anext(aiter(slow.aiter_raw())) == b" "
    assert unknown.status_code == 404  # the stub's own
    assert unknown.headers["x-tracer-decision"] == "forwarded"
    assert [seen["path"] for seen in stub_llm.requests] == ["/v1/audio/transcriptions", "/v1/responses"]


async def test_headers_arrive_as_the_bytes_they_are(task: MakeTask, stub_llm: StubLLM) -> None:
    """What is no ASCII is passed on too, and is no error of ours."""
    with listening(task()) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            headers = {b"openai-organization": "Müller".encode(), b"idempotency-key": b"\xff"}
            answer = await client.post("/embeddings", json={"input": ["one"]}, headers=headers)
    assert answer.status_code == 200
    assert stub_llm.requests[0]["headers"]["openai-organization"].encode("latin-1") == "Müller".encode()


async def test_what_is_not_passed_on_is_refused_clearly(task: MakeTask, stub_llm: StubLLM) -> None:
    """No endpoint, another method, a page of another site, a path that leads elsewhere, a body that is too large."""
    async with serving(task(server={"forward": False})) as (client, _):
        nowhere = await client.post("/v1/embeddings", json={})
    async with serving(task(server={"max_body_mb": 0.001})) as (client, _):
        listed = await client.get("/v1/files")
        ours = await client.post("/v1/models", json={})
        foreign = [
            await client.post("/v1/embeddings", content="{}", headers=headers)
            for headers in (
                {"origin": "https://evil.example"},
                {"origin": "http://["},
                {"origin": "null"},
                {"sec-fetch-site": "cross-site"},
            )
        ]
        elsewhere = [
            await client.post(httpx.URL("http://localhost", raw_path=path.encode()), json={})
            for path in ("/v1/../admin", "/v1/a/%2e%2e/b", "/v1/x%3fy", "/v1/caf%C3%A9")
        ]
        large = await client.post("/v1/embeddings", content=b"x" * 2000)
    assert "server.forward is off" in ErrorBody.model_validate(nowhere.json()).error.message
    statuses = [nowhere.status_code, listed.status_code, ours.status_code, large.status_code]
    assert statuses == [404, 405, 405, 413]
    assert {answer.status_code for answer in foreign} == {403}
    assert {answer.status_code for answer in elsewhere} == {404}
    assert stub_llm.count == 0


@pytest.mark.parametrize(
    ("path", "arrives"), [("http://evil.example/x", []), ("//evil.example", []), ("evil:80/x", ["/v1/evil:80/x"])]
)
async def test_the_teachers_key_goes_nowhere_else(
    task: MakeTask, stub_llm: StubLLM, path: str, arrives: list[str]
) -> None:
    """What looks like a URL of its own is refused, or is a path below the endpoint's root all the same."""
    async with serving(task()) as (client, _):
        await client.post(httpx.URL("http://localhost", raw_path=f"/v1/{path}".encode()), json={})
    assert [seen["path"] for seen in stub_llm.requests] == arrives


def test_dots_climb_nowhere() -> None:
    """Whatever is made of dots alone is no name of a resource."""
    assert is_plain("fine_tuning/jobs/ft-1:cancel")
    assert not any(map(is_plain, ["", "..", "a/../b", "a/./b", "a//..", "a b", "a\\b", "a?b", "a#b", "ä", "a\n"]))
