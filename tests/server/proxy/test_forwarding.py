"""The proxy changes no byte of what it forwards, and keeps what it may keep."""

import asyncio
import gzip
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.proxy.conftest import ADMIN, proxying
from tests.support.server_process import answering, free_port
from tests.support.stub_llm import StubLLM
from tests.support.tasks import banking
from tracer_serve.components.redactors.pii import Pii
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.infra.redaction import redaction
from tracer_serve.storage.observed import ObservedCalls

pytestmark = pytest.mark.anyio
TEXTS, LABELS = banking(120)
ASK = "Which intent does this message have? Answer with its name and nothing else.\n\nMessage: "
ADMITTED = {"authorization": f"Bearer {ADMIN}"}


def body(text: str, **rest: Any) -> dict[str, Any]:
    return {"model": "stub-1", "messages": [{"role": "user", "content": f"{ASK}{text}"}], **rest}


def ask(url: str, texts: list[str], **rest: Any) -> list[httpx.Response]:
    with httpx.Client(base_url=url, timeout=30) as client:
        return [client.post("/v1/chat/completions", json=body(text, **rest)) for text in texts]


@asynccontextmanager
async def upstream_of(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each connection with bytes as they are, and records what it was sent."""
    seen: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        seen.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", seen


@pytest.mark.parametrize("status", [200, 201, 400, 401, 429, 500])
async def test_bytes_arrive_as_they_were_sent(tmp_path: Path, status: int) -> None:
    """Method, path, query, key, headers and body go up unchanged; status, headers and body come back unchanged."""
    packed = gzip.compress(b'{"error": "sk-of-the-caller is not known \xff"}')
    head = b"HTTP/1.1 %d X\r\nx-odd: \xe9\r\ncontent-encoding: gzip\r\nset-cookie: a=1\r\n" % status
    answer = head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(packed) + packed
    sent = b'{ "model":"m" , "messages": [{"role":"user","content":"\\u00e9"}]}\n'
    headers = {"authorization": "Bearer sk-of-the-caller", "x-mine": "1", "content-type": "text/odd"}
    async with upstream_of(answer) as (url, seen):
        with proxying(url, tmp_path) as proxy:
            async with httpx.AsyncClient(base_url=proxy.url) as client:
                request = client.build_request("PUT", "/v1/files/a:b?x=%20y", content=sent, headers=headers)
                got = await client.send(request, stream=True)
                raw = b"".join([part async for part in got.aiter_raw()])
    assert (got.status_code, raw) == (status, packed)
    assert {(b"x-odd", b"\xe9"), (b"set-cookie", b"a=1")} <= set(got.headers.raw)
    assert seen[0].startswith(b"PUT /v1/files/a:b?x=%20y HTTP/1.1\r\n")
    assert seen[0].endswith(b"\r\n\r\n" + sent)
    for line in (b"authorization: Bearer sk-of-the-caller", b"x-mine: 1", b"content-type: text/odd"):
        assert line in seen[0]


async def test_a_stream_comes_as_it_is_written(tmp_path: Path, stub_llm: StubLLM) -> None:
    """The first event is there before the last is written, and a stream has the same bytes as without the proxy."""
    stub_llm.default = "a long answer"
    with proxying(stub_llm.url, tmp_path) as proxy:
        [through] = ask(proxy.url, ["hello"], stream=True)
        [direct] = ask(stub_llm.url.removesuffix("/v1"), ["hello"], stream=True)
        stub_llm.script.append("loris")
        async with (
            httpx.AsyncClient(base_url=proxy.url) as client,
            client.stream("POST", "/v1/chat/completions", json=body("x")) as slow,
        ):
            assert await anext(aiter(slow.aiter_raw())) == b" "
            assert stub_llm.in_flight == 1
    created = json.loads(direct.text.split("\n\n")[0].removeprefix("data: "))["created"]
    assert through.text.replace(str(created - 1), str(created)) == direct.text.replace(str(created - 1), str(created))
    assert through.text.endswith("data: [DONE]\n\n")


def test_an_upstream_that_is_down_and_paths_that_leave_it(tmp_path: Path) -> None:
    """A 502 says that it cannot be reached; no path leads out of the upstream's root."""
    with proxying("http://127.0.0.1:9/v1", tmp_path) as proxy, httpx.Client(base_url=proxy.url) as client:
        down = client.get("/v1/models")
        odd = [client.get(f"/v1/{path}") for path in ("%2e%2e/admin", "a%00b", "http:%5c%5cevil")]
    assert (down.status_code, down.json()["error"]["code"]) == (502, "upstream_unavailable")
    assert [answer.status_code for answer in odd] == [404, 404, 404]


@pytest.mark.parametrize("stream", [False, True])
def test_a_task_is_found_and_written(tmp_path: Path, stub_llm: StubLLM, stream: bool) -> None:
    """Slot, labels, counts and tokens of 120 calls, plain or streamed, are shown and written to a YAML with the key."""
    stub_llm.labels = dict(zip(TEXTS, LABELS, strict=True))
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    with proxying(stub_llm.url, tmp_path) as proxy, httpx.Client(base_url=proxy.url) as client:
        ask(proxy.url, TEXTS, **options)
        proxy.observed(120)
        refused = [client.get("/calls.json"), client.get("/", headers={"authorization": "Bearer other"})]
        shown = client.get("/calls.json", headers=ADMITTED).json()
        page = client.get("/", auth=("any", ADMIN)).text
        name = shown["tasks"][0]["name"]
        wrote = client.post("/admin/tasks", json={"name": name}, headers=ADMITTED)
        again = client.post("/admin/tasks", json={"name": name}, headers=ADMITTED)
        foreign = client.post("/admin/tasks", data={"name": name}, headers=ADMITTED | {"origin": "http://evil.example"})
    assert [answer.status_code for answer in refused] == [401, 401]
    assert shown["calls"] == 120
    [row] = shown["tasks"]
    assert (row["calls"], row["before"], row["after"]) == (120, ASK[-60:], "")
    assert row["prompt_tokens"] > 10
    assert set(row["labels"]) == {label for label in LABELS if LABELS.count(label) > 1}
    assert "1 classification task was found" in page
    assert (wrote.status_code, again.status_code, foreign.status_code) == (201, 400, 403)
    traces = (tmp_path / "tasks" / f"{name}.traces.jsonl").read_text().splitlines()
    assert {(row["input"], row["teacher"]) for row in map(json.loads, traces)} == set(zip(TEXTS, LABELS, strict=True))


def test_what_is_kept(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Of long answers only counts, of a task redacted texts, no key; it survives a restart, for its days."""
    secret = "my address is ann@mail.example"
    stub_llm.labels = {text: "yes" if n % 2 else "no" for n, text in enumerate(TEXTS)} | {secret: "yes"}
    with (
        proxying(stub_llm.url, tmp_path, redact=redaction([Pii()])) as proxy,
        httpx.Client(base_url=proxy.url) as client,
    ):
        ask(proxy.url, [*TEXTS[:60], secret])
        stub_llm.default = "a long story " * 30
        for n in range(40):
            client.post(
                "/v1/chat/completions",
                json={"model": "stub-1", "messages": [{"role": "user", "content": f"tell me the secret story {n}"}]},
                headers={"authorization": "Bearer sk-of-the-caller"},
            )
        proxy.observed(101)
    file = tmp_path / "proxy" / "observed.db"
    kept = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"[email]" in kept
    for word in (b"ann@mail", b"secret story", b"long story", b"sk-of-the-caller"):
        assert word not in kept
    with proxying(stub_llm.url, tmp_path) as proxy:
        [task] = proxy.found.tasks()
        assert (task.group.totals.calls, proxy.found.totals().calls) == (61, 101)
    with proxying(stub_llm.url, tmp_path, days=0.0) as proxy:
        ask(proxy.url, TEXTS[:1])
        proxy.observed(102)
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM prompts").fetchone() == (0,)


def test_without_an_admin_key_the_page_is_closed(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Nobody reads what was observed."""
    with proxying(stub_llm.url, tmp_path, admin_key="") as proxy, httpx.Client(base_url=proxy.url) as client:
        answers = [client.get("/"), client.get("/calls.json"), client.post("/admin/tasks", json={"name": "x"})]
    assert [answer.json()["error"]["code"] for answer in answers] == ["admin_closed"] * 3


def test_the_command_serves_until_it_is_stopped(tmp_path: Path, stub_llm: StubLLM) -> None:
    """`tracer-serve proxy` forwards, saves what it has seen on SIGTERM, and `discover` reads it."""
    stub_llm.labels = {text: "yes" if n % 2 else "no" for n, text in enumerate(TEXTS)}
    port = free_port()
    words = [sys.executable, "-m", "tracer_serve", "proxy", "--upstream", stub_llm.url, "--port", str(port)]
    with answering(words, port, tmp_path, dict(os.environ)) as client:
        for text in TEXTS[:40]:
            client.post("/v1/chat/completions", json=body(text)).raise_for_status()
    groups = CallGroups()
    ObservedCalls(tmp_path / ".tracer" / "proxy" / "observed.db").load_into(groups)
    [group] = groups.tasks()
    assert (group.totals.calls, group.label_set) == (40, ("no", "yes"))
