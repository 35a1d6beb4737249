"""One abusive caller of each kind, over real sockets, and another caller's single texts beside it."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.server.worlds import BLUE, DEFERRED, HANDLED, RED, make_task, make_version, unknown
from tests.support.server_process import answering, bare, free_port
from tests.support.stub_llm import Faults, StubLLM, serve

pytestmark = pytest.mark.anyio
PLACES = 12
GREEDY, OTHER = "key-of-the-greedy-caller", "key-of-the-other-caller"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    """An LLM server for all tests of this module."""
    with serve(StubLLM()) as served:
        yield served


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, stub: StubLLM) -> Iterator[str]:
    """The address of a server process with two keys, a certified version and a teacher that takes twelve calls."""
    teacher = {"type": "openai", "base_url": stub.url, "model": "stub-1", "retries": 0, "deadline_s": 20.0}
    limits = {"max_concurrency": PLACES, "queue": 32, "cache": {"size": 0}}
    server = {"api_keys": ["${GREEDY_KEY}", "${OTHER_KEY}"], "max_batch": 1024, "decision_cache": 0}
    folder, port = tmp_path_factory.mktemp("fair"), free_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GREEDY_KEY", GREEDY)
        environment.setenv("OTHER_KEY", OTHER)
        task = make_task(folder, stub, teacher=teacher | limits, server=server, schedule={"min_new_traces": 10**6})
    stub.default = "red"
    make_version(task)
    words = [sys.executable, "-m", "tracer_serve", str(folder / "task.yaml"), "--port", str(port)]
    env = bare(folder / "home", GREEDY_KEY=GREEDY, OTHER_KEY=OTHER, PYTHONPATH=":".join(sys.path))
    with answering(words, port, folder, env) as client:
        yield str(client.base_url)


def client_of(url: str, key: str) -> httpx.AsyncClient:
    """Return a client with its own connections."""
    limits = httpx.Limits(max_connections=400)
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30, limits=limits)


@asynccontextmanager
async def beside(
    url: str, number: int, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
) -> AsyncIterator[list[int]]:
    """Let the greedy caller ask without end on a number of connections; yields the statuses of its refusals."""
    refused: list[int] = []

    async def forever(client: httpx.AsyncClient) -> None:
        while True:
            with suppress(httpx.HTTPError):
                answer = await ask(client)
                if answer.is_error:
                    refused.append(answer.status_code)
                    await asyncio.sleep(0.1)

    async with client_of(url, GREEDY) as client:
        tasks = [asyncio.create_task(forever(client)) for _ in range(number)]
        await asyncio.sleep(1.0)
        try:
            yield refused
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def singles(url: str, number: int, body: dict[str, Any], route: str = "classify") -> list[int]:
    """Return the statuses of another caller's requests, one after the other."""
    async with client_of(url, OTHER) as client:
        return [(await client.post(f"/v1/{route}", json=body)).status_code for _ in range(number)]


async def test_lists_lose_no_row_and_refuse_no_other(url: str) -> None:
    """Attack S5: eight connections send lists of 1,024 texts; no trace is lost, and another caller is answered.

    How long it waits is for `bench.fairness` to measure.
    """
    texts = [f"{text} {i}" for i in range(43) for text in RED + BLUE][:1024]
    async with beside(url, 8, lambda client: client.post("/v1/classify", json={"input": texts})):
        beside_lists = await singles(url, 30, {"input": HANDLED})
    assert set(beside_lists) == {200}
    assert (await health_of(url))["traces_lost"] == 0


async def test_a_caller_that_fills_the_teachers_queue_keeps_no_other_waiting(url: str, stub: StubLLM) -> None:
    """Attack S13: another caller's text is asked about while all that one caller sent is still under way."""
    stub.use(Faults())
    stub.hold()
    numbers = itertools.count()
    async with beside(
        url, 60, lambda client: client.post("/v1/classify", json={"input": unknown(next(numbers))})
    ) as refused:
        await reached(lambda: len(refused), 1)
        other = asyncio.create_task(singles(url, 1, {"input": DEFERRED}))
        await reached(lambda: sum(DEFERRED in json.dumps(seen["body"]) for seen in stub.requests), 1)
        stub.release.set()
        found = await other
    assert found == [200]


async def test_a_caller_that_fills_the_forwarding_places_refuses_no_other(url: str, stub: StubLLM) -> None:
    """Attack S13: with eighty calls of one caller being passed on, another caller's call is passed on too."""
    stub.use(Faults())
    stub.hold()
    body = {"model": "another-model", "messages": [{"role": "user", "content": "write a poem"}]}
    async with beside(url, 80, lambda client: client.post("/v1/chat/completions", json=body)) as refused:
        await reached(lambda: len(refused), 1)
        other = asyncio.create_task(singles(url, 1, body, "chat/completions"))
        await asyncio.sleep(0.5)
        stub.release.set()
        found = await other
    assert found == [200]


async def reached(value: Callable[[], int], wanted: int) -> None:
    """Wait until a number is reached."""
    async with asyncio.timeout(60):
        while value() < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def health_of(url: str) -> dict[str, Any]:
    """Return `/healthz`."""
    async with client_of(url, OTHER) as client:
        found: dict[str, Any] = json.loads((await client.get("/healthz")).text)
        return found
