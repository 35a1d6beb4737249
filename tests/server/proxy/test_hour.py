"""An hour of traffic through the proxy, and through a server that handles a part of it: no byte of the rest changes.

The hour holds 18,000 calls, five a second, sent sixteen at a time as fast as they are answered. The upstream is no
LLM but a server that answers with anything: JSON, packed JSON, streams in uneven pieces, errors, bytes that are no
text, nothing.
"""

import asyncio
import gzip
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.server.worlds import HANDLED, make_task, make_version, unknown
from tests.support.server_process import answering, free_port
from tests.support.stub_llm import StubLLM
from tracer_serve.components.factory import make_teacher

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
CALLS, CLIENTS = 18_000, 16
STATUSES = (200, 200, 200, 201, 400, 404, 429, 500)


def _key(method: str, path: str, body: bytes) -> str:
    """Return the digest of a whole call; no two calls of the hour that are passed on are alike."""
    return sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()


@dataclass(slots=True)
class Upstream:
    """What was answered, by the digest of the call: status and digest of the body."""

    answered: dict[str, tuple[int, str]] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = _key(request.method, request.path_qs, await request.read())
        assert key not in self.answered, "sent twice"
        chance = random.Random(key)
        status, kind = chance.choice(STATUSES), chance.choice(("json", "packed", "stream", "stream", "bytes"))
        if kind == "stream":
            return await self._stream(request, key, chance)
        said = chance.randbytes(chance.randrange(3_000))
        headers = {"content-type": "application/octet-stream"}
        if kind != "bytes":
            said, headers = _completion(chance), {"content-type": "application/json"}
        if kind == "packed" and status < web.HTTPBadRequest.status_code:  # errors are unpacked, to mask keys in them
            said, headers = gzip.compress(said), headers | {"content-encoding": "gzip"}
        self.answered[key] = status, sha256(said).hexdigest()
        return web.Response(status=status, body=said, headers=headers)

    async def _stream(self, request: web.Request, key: str, chance: random.Random) -> web.StreamResponse:
        """Answer with events, cut where no event ends."""
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        whole = b"".join(b"data: %s\n\n" % _completion(chance) for _ in range(chance.randrange(1, 9)))
        whole += b"data: [DONE]\n\n"
        self.answered[key] = 200, sha256(whole).hexdigest()
        while whole:
            cut = chance.randrange(1, 400)
            await answer.write(whole[:cut])
            whole = whole[cut:]
            await asyncio.sleep(0)
        return answer


def _completion(chance: random.Random) -> bytes:
    label, tokens = chance.choice(("red", "blue")), chance.randrange(100)
    choice = {"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    said = {"id": f"c-{tokens}", "object": "chat.completion", "model": "stub-1", "choices": [choice], "usage": usage}
    return json.dumps(said).encode()


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[str, Upstream]]:
    """Run an upstream; yields its address and what it notes."""
    noted = Upstream()
    app = web.Application(client_max_size=10**8)
    app.router.add_route("*", "/{rest:.*}", noted.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
    try:
        yield f"http://127.0.0.1:{port}/v1", noted
    finally:
        await runner.cleanup()


def _call(number: int, of_the_task: dict[str, bytes]) -> tuple[str, str, bytes]:
    """Return method, path and body of a call: of a task (handled, deferred) or no POST, other chats, embeddings."""
    chance = random.Random(-1 - number)
    kind = chance.choice((*(of_the_task or ("file", "list")), "chat", "chat", "embeddings"))
    if kind in of_the_task:
        body = of_the_task[kind].replace(b"zzyzx", unknown(number).encode())
        return "POST", "/v1/chat/completions", body
    if kind == "file":
        return "PUT", f"/v1/files/a:{number}?x=%20y", chance.randbytes(chance.randrange(20_000))
    if kind == "list":
        return "GET", f"/v1/batches?after={number}", b""
    said = {"model": "another", "stream": chance.random() < 0.3, "input": f"text {number} \u00e9"}
    messages = [{"role": "user", "content": f"write a poem about {unknown(number)}"}]
    path = "/v1/embeddings" if kind == "embeddings" else "/v1/chat/completions"
    return "POST", path, json.dumps(said | {"messages": messages}, indent=chance.randrange(3)).encode() + b"\n"


async def _hour(root: str, noted: Upstream, of_the_task: dict[str, bytes]) -> Counter[str]:
    """Send the hour's calls, compare each with what the upstream noted, and count how they were decided.

    Without calls of a task, there are calls that only a proxy passes on.
    """
    decided, numbers = Counter[str](), iter(range(CALLS))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            method, path, body = _call(number, of_the_task)
            headers = {"content-type": "application/json"}
            async with session.request(method, root + path, data=body, headers=headers) as got:
                raw = await got.read()
            decision = got.headers.get("x-tracer-decision", "forwarded")
            decided[decision] += 1
            if decision != "handled":
                assert noted.answered[_key(method, path, body)] == (got.status, sha256(raw).hexdigest()), number

    async with aiohttp.ClientSession(auto_decompress=False) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    return decided


async def test_an_hour_through_the_proxy(tmp_path: Path) -> None:
    """Everything reaches the upstream and the caller byte by byte, streams included."""
    async with upstream() as (url, noted):
        words = [sys.executable, "-m", "tracer_serve", "proxy", "--upstream", url, "--state", str(tmp_path / "state")]
        port = free_port()
        with answering([*words, "--port", str(port)], port, tmp_path, os.environ) as client:
            decided = await _hour(str(client.base_url).rstrip("/"), noted, {})
    assert decided == {"forwarded": CALLS}
    assert len(noted.answered) == CALLS


async def test_an_hour_through_a_server_that_handles_a_part(tmp_path: Path, stub_llm: StubLLM) -> None:
    """What is not handled reaches the upstream and the caller byte by byte; what is handled never reaches it."""
    async with upstream() as (url, noted):
        port = free_port()
        teacher = {"type": "openai", "base_url": url, "model": "stub-1", "retries": 0, "cache": {"size": 0}}
        task = make_task(tmp_path, stub_llm, teacher=teacher, server={"port": port})
        make_version(task)
        request = make_teacher(task).request  # type: ignore[attr-defined]
        known = {"handled": HANDLED, "deferred": "zzyzx"}
        bodies = {kind: json.dumps(request(text)).encode() for kind, text in known.items()}
        words = [sys.executable, "-m", "tracer_serve", str(tmp_path / "task.yaml")]
        with answering(words, port, tmp_path, os.environ) as client:
            decided = await _hour(str(client.base_url).rstrip("/"), noted, bodies)
    assert decided["handled"] > CALLS // 10
    assert decided["deferred"] > CALLS // 10
    assert decided["forwarded"] > CALLS // 2
    assert len(noted.answered) == CALLS - decided["handled"]
