"""Calls that are somebody else's: passed on and back untouched."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.server.chat.conftest import listening
from tests.server.worlds import DEFERRED, HANDLED, RED, make_version, serving
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until_async
from tracer_serve.config.load import Task
from tracer_serve.server.routes.response_models import ErrorBody

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
URL = "/v1/chat/completions"
BODY = b'{ "model": "stub-1",\n "messages": [{"role": "user", "content": "tell me"}], "seed": 7, "stream": false }'
JSON = {"content-type": "application/json"}


def chat(**rest: Any) -> bytes:
    return json.dumps(json.loads(BODY) | rest).encode()


async def test_a_foreign_call_is_passed_on_with_the_teachers_key_not_the_callers(
    task: MakeTask, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body arrives as it is, the answer comes back as it is, and neither key is shown to the other side."""
    monkeypatch.setenv("UPSTREAM_KEY", "sk-of-the-operator")
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "api_key": "${UPSTREAM_KEY}"}
    async with serving(task(teacher=teacher)) as (client, _):
        stub_llm.default = "hello"
        answer = await client.post(URL, content=BODY, headers=JSON | {"authorization": "Bearer sk-of-the-caller"})
        stub_llm.script.append("401")
        refused = await client.post(URL, content=BODY, headers=JSON)
    seen = stub_llm.requests[0]
    assert seen["body"] == json.loads(BODY)
    assert seen["headers"]["authorization"] == "Bearer sk-of-the-operator"
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    assert answer.json()["usage"]["total_tokens"] > 0
    assert answer.headers["x-tracer-decision"] == "forwarded"
    assert refused.status_code == 401
    assert "sk-of-the-operator" not in refused.text
    assert "***" in refused.text


async def test_a_label_outside_the_callers_enum_is_upstreams_to_give(task: MakeTask, stub_llm: StubLLM) -> None:
    """A call of a known form gets upstream's own answer; what is no label in it becomes no trace."""
    colours = {"properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": colours}}
    body = chat(messages=[{"role": "user", "content": "grass"}], response_format=wanted)
    form = {"name": "schema", "prompt": "{text}", "options": {"response_format": wanted, "seed": 7}}
    open_task = task(labels=None, forms=[form])
    make_version(open_task)
    stub_llm.default = "green"
    async with serving(open_task) as (client, runtime):
        answer = await client.post(URL, content=body, headers=JSON)
        labels = [trace.teacher_label for trace in runtime.store.traces.labelled()]
    assert answer.headers["x-tracer-decision"] == "deferred"
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"colour": "green"}
    assert [seen["body"] for seen in stub_llm.requests] == [json.loads(body)]
    assert labels == ["green"]  # an open task takes new labels


async def test_a_direct_call_whose_enum_lacks_the_teachers_label_is_an_error(task: MakeTask, stub_llm: StubLLM) -> None:
    """The task's name is no model of upstream's, so there is nobody to forward the call to."""
    colours = {"properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": colours}}
    body = chat(model="colours", messages=[{"role": "user", "content": "grass"}], response_format=wanted)
    open_task = task(labels=None)
    make_version(open_task)
    stub_llm.default = "green"
    async with serving(open_task) as (client, _):
        answer = await client.post(URL, content=body, headers=JSON)
    assert answer.status_code == 503
    assert ErrorBody.model_validate(answer.json()).error.code == "teacher_unavailable"


async def test_upstreams_refusals_come_through(task: MakeTask, stub_llm: StubLLM) -> None:
    """Status, body and `Retry-After` are the endpoint's; one that cannot be reached is a 503 of ours."""
    async with serving(task()) as (client, _):
        stub_llm.script.extend(["429", "reset"])
        limited = await client.post(URL, content=BODY, headers=JSON)
        broken = await client.post(URL, content=BODY, headers=JSON)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "0.01")
    assert limited.json()["error"]["code"] == "rate_limit_exceeded"
    assert broken.status_code == 503
    assert ErrorBody.model_validate(broken.json()).error.code == "upstream_unavailable"


@pytest.mark.parametrize(
    "rest", ["content-length: 99\r\n\r\n{", "content-encoding: gzip\r\ncontent-length: 1\r\n\r\n{"]
)
async def test_a_refusal_that_cannot_be_read_keeps_its_status(task: MakeTask, rest: str) -> None:
    """One that is cut short, or is not packed as it says, is upstream's all the same, and no bug of ours."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 429 Slow\r\nretry-after: 7\r\n{rest}".encode())
        writer.close()

    upstream = await asyncio.start_server(refuse, "127.0.0.1")
    port = upstream.sockets[0].getsockname()[1]
    teacher = {"type": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "model": "stub-1"}
    async with upstream, serving(task(teacher=teacher)) as (client, _):
        answer = await client.post(URL, content=BODY, headers=JSON)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


async def test_a_body_that_is_no_chat_request_is_upstreams_to_judge(task: MakeTask, stub_llm: StubLLM) -> None:
    """Also where it names the task; only what is no JSON at all is refused here."""
    bodies = (chat(messages=[]), chat(model="colours", messages=[]), b'{"model": "\\ud800"}')
    async with serving(task()) as (client, _):
        answers = [await client.post(URL, content=content, headers=JSON) for content in bodies]
        broken = await client.post(URL, content=b"{", headers=JSON)
    assert {(answer.status_code, answer.headers["x-tracer-reason"]) for answer in answers} == {(400, "not_a_call")}
    assert (broken.status_code, stub_llm.count) == (400, 3)


async def test_headers_with_white_space_do_not_open_a_circuit_breaker(task: MakeTask, stub_llm: StubLLM) -> None:
    """Whatever a caller sends in a forwarded call, the teacher is asked about the next deferred text."""
    stub_llm.default = "blue"
    with listening(task()) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        statuses = []
        for _ in range(10):
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"POST {URL} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
            writer.write(f"{head}idempotency-key: a \t \r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)
            statuses.append((await reader.readline()).split()[1])
            writer.close()
        async with httpx.AsyncClient(base_url=url) as client:
            deferred = await client.post("/classify", json={"input": DEFERRED})
    assert set(statuses) == {b"200"}
    assert deferred.json()["data"][0]["label"] == "blue"
    assert stub_llm.requests[0]["headers"]["idempotency-key"] == "a"


async def test_forwarded_calls_that_fail_leave_the_teachers_circuit_breaker_closed(
    task: MakeTask, stub_llm: StubLLM
) -> None:
    """Ten calls on which upstream breaks the connection do not keep a deferred text from its label."""
    stub_llm.default = "blue"
    async with serving(task()) as (client, _):
        stub_llm.script.extend(["reset"] * 10)
        broken = {(await client.post(URL, content=BODY, headers=JSON)).status_code for _ in range(10)}
        stub_llm.script.clear()
        deferred = await client.post("/v1/classify", json={"input": DEFERRED})
    assert broken == {503}
    assert deferred.json()["data"][0]["label"] == "blue"


@pytest.mark.parametrize(
    ("head", "status", "wait"),
    [
        ("HTTP/1.1 429 Slow\r\nretry-after: 31536000\r\n", 429, "86400"),
        ("HTTP/1.1 429 Slow\r\nretry-after: " + "9" * 309 + "\r\n", 429, None),
        ("HTTP/1.1 503 Down\r\nretry-after-ms: 99999999999\r\n", 503, None),
        ("HTTP/1.1 429 Slow\r\nretry-after: soon\r\n", 429, None),
        ("HTTP/1.1 999 Odd\r\n", 502, None),
        ("HTTP/1.1 299 Fine\r\n", 299, None),
    ],
)
async def test_odd_answers_of_upstream_are_bounded(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch, head: str, status: int, wait: str | None
) -> None:
    """A wait of a year is a day, nonsense is no wait, 999 is no status; of the body only the key is masked."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        said = b"\xff\x00 sk-of-the-operator"
        writer.write(f"{head}x-request-id: sk-of-the-operator\r\ncontent-length: {len(said)}\r\n\r\n".encode() + said)
        writer.close()

    monkeypatch.setenv("UPSTREAM_KEY", "sk-of-the-operator")
    upstream = await asyncio.start_server(refuse, "127.0.0.1")
    port = upstream.sockets[0].getsockname()[1]
    teacher = {"type": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "model": "m", "api_key": "${UPSTREAM_KEY}"}
    async with upstream, serving(task(teacher=teacher)) as (client, _):
        answer = await client.post(URL, content=BODY, headers=JSON)
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == wait
    assert "sk-of-the-operator" not in answer.text + str(answer.headers)
    assert answer.content == b"\xff\x00 ***" or status == httpx.codes.BAD_GATEWAY


async def test_without_an_endpoint_a_foreign_call_is_a_404(task: MakeTask, tmp_path: Any) -> None:
    """The offline teacher, or `server.forward: false`: the error says which, and what would be answered."""
    known = tmp_path / "known.jsonl"
    known.write_text(json.dumps({"input": RED[0], "teacher": "red"}) + "\n")
    for spec in (task(teacher={"type": "offline", "file": str(known)}), task(server={"forward": False})):
        async with serving(spec) as (client, _):
            foreign = await client.post(URL, content=BODY, headers=JSON)
            own = await client.post(
                URL, content=chat(model="colours", messages=[{"role": "user", "content": RED[0]}]), headers=JSON
            )
        assert (foreign.status_code, own.status_code) == (404, 200)
        error = ErrorBody.model_validate(foreign.json()).error
        assert (error.code, error.param) == ("model_not_found", "model")
        assert "'colours'" in error.message


async def test_a_stream_is_passed_on_as_it_comes_and_cut_where_it_was_cut(task: MakeTask, stub_llm: StubLLM) -> None:
    """The first piece is there before the last is written; a stream that breaks upstream does not end well here."""
    stub_llm.default = "a long answer"
    with listening(task()) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            whole = await client.post("/chat/completions", content=chat(stream=True), headers=JSON)
            stub_llm.script.append("cut_stream")
            cut = await client.post("/chat/completions", content=chat(stream=True), headers=JSON)
            stub_llm.script.append("loris")
            async with client.stream("POST", "/chat/completions", content=chat(stream=True), headers=JSON) as slow:
                first = await anext(aiter(slow.aiter_raw()))
                assert stub_llm.in_flight == 1
            await until_async(lambda: stub_llm.in_flight == 0)
    assert whole.text.endswith("data: [DONE]\n\n")
    assert "DONE" not in cut.text
    assert first == b" "


async def test_a_client_that_leaves_ends_the_call_upstream(task: MakeTask, stub_llm: StubLLM) -> None:
    """Also before the first byte of the answer."""
    with listening(task()) as url:
        stub_llm.hold()
        async with httpx.AsyncClient(base_url=url) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/chat/completions", content=BODY, headers=JSON, timeout=0.5)
        await until_async(lambda: stub_llm.in_flight == 0)
        assert stub_llm.count == 1


async def test_slow_readers_of_long_answers_do_not_keep_the_teacher_from_labelling(
    task: MakeTask, stub_llm: StubLLM
) -> None:
    """Foreign calls have connections of their own: more of them than the teacher may have do not matter."""
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "max_concurrency": 1, "deadline_s": 5.0}
    async with serving(task(teacher=teacher)) as (client, _):
        stub_llm.script.extend(["loris"] * 3)
        slow = [asyncio.create_task(client.post(URL, content=BODY, headers=JSON)) for _ in range(3)]
        await until_async(lambda: stub_llm.in_flight == 3)
        answer = await client.post("/v1/classify", json={"input": HANDLED})
        for held in slow:
            held.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    assert answer.json()["data"][0]["label"] == "red"
