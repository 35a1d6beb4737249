"""Clients that mean harm: what they cost is bounded, and others are answered meanwhile."""

import contextlib
import json
import random
import resource
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from tests.server.chat.conftest import listening, running_app
from tests.server.test_run import process
from tests.server.worlds import HANDLED, make_version, serving
from tests.support.server_process import free_port, workers_at
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until
from tracer_serve.config.load import Task
from tracer_serve.server.app import make_app
from tracer_serve.server.chat.request import ChatRequest
from tracer_serve.server.dashboard.explain import ExplainRequest
from tracer_serve.server.http import request_body as body
from tracer_serve.server.http.connection_limits import BoundedProtocol
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.idle_connections import Limits
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.server.routes.response_models import ErrorBody

MakeTask = Callable[..., Task]
HUGE = 200_000_000
LIMITS = Limits()
ROUTES = ("/v1/classify", "/v1/chat/completions", "/v1/feedback", "/v1/explain", "/admin/rollback")


class Server:
    """A served task in processes of its own."""

    def __init__(self, port: int, worker: int) -> None:
        self.address, self.worker = ("127.0.0.1", port), worker
        self.url = f"http://127.0.0.1:{port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)

    def answers(self) -> None:
        """Check that somebody else is answered."""
        answer = httpx.post(f"{self.url}/v1/classify", json={"input": HANDLED}, timeout=60)
        assert answer.json()["data"][0]["decision"] == "handled"

    @property
    def memory_mb(self) -> float:
        """Resident memory of the worker."""
        return int(Path(f"/proc/{self.worker}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@contextmanager
def served(task: Task) -> Iterator[Server]:
    make_version(task)
    with process(task):
        (worker,) = workers_at(task.spec.server.port)
        server = Server(task.spec.server.port, worker)
        for _ in range(20):
            server.answers()
        yield server


def head(*lines: str) -> bytes:
    return "\r\n".join(
        ("POST /v1/classify HTTP/1.1", "host: localhost", "content-type: application/json", *lines, "", "")
    ).encode()


@pytest.mark.slow
def test_bodies_of_200_mb_are_refused_and_not_kept(task: MakeTask) -> None:
    """Declared or in chunks, thirty of them: each is a 413, memory stays as it was, others are answered."""
    with served(task(server={"port": free_port()})) as server:
        before = server.memory_mb
        for declared in (True, False) * 15:
            with server.connect() as client:
                sends = f"content-length: {HUGE}" if declared else "transfer-encoding: chunked"
                client.sendall(head(sends))
                piece = b"x" * 1_000_000 if declared else b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"
                with contextlib.suppress(ConnectionError):  # it need not listen to the end
                    for _ in range(HUGE // 1_000_000):
                        client.sendall(piece)
                server.answers()
                assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert server.memory_mb < before + 40


@pytest.mark.slow
def test_ten_thousand_silent_connections_do_not_keep_others_out(task: MakeTask) -> None:
    """Ten thousand and more: memory is bounded, others are answered, and whoever says nothing is sent away."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMITS.connections + 500
    if hard < wanted + 500:
        pytest.skip(f"the machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 500), hard))
    with served(task(server={"port": free_port()})) as server, ExitStack() as stack:
        before = server.memory_mb
        clients = [stack.enter_context(server.connect()) for _ in range(wanted)]
        for client in clients[-2000:]:
            client.sendall(b"POST /v1/classify HTTP/1.1\r\nx-slow: ")
        server.answers()
        assert len(list(Path(f"/proc/{server.worker}/fd").iterdir())) > LIMITS.connections
        assert server.memory_mb < before + 300
        for client in clients:
            assert client.recv(1) == b""
        server.answers()


@pytest.mark.slow
def test_stalled_bodies_end_in_a_408_and_add_up_to_a_bound(task: MakeTask) -> None:
    """Two hundred bodies that stop short of their end: no more than the bound is held, and each is told."""
    with served(task(server={"port": free_port()})) as server, ExitStack() as stack:
        before = server.memory_mb
        clients = [stack.enter_context(server.connect()) for _ in range(200)]
        for client in clients:
            client.sendall(head("content-length: 3500000") + b"x" * 3_000_000)
        server.answers()
        assert server.memory_mb < before + 1.5 * body.MOST_IN_MEMORY / 1e6
        told = [client.recv(4096)[9:12] for client in clients]
        server.answers()
    assert set(told) == {b"408", b"503"}


def test_a_head_without_end_is_refused(task: MakeTask) -> None:
    """Also one that is sent while the request before it is still being answered; then the connection is closed."""
    with listening(task()) as url:
        address = httpx.URL(url).host, httpx.URL(url).port
        for first in (b"", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"):
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(first + b"GET /livez HTTP/1.1\r\n")
                with contextlib.suppress(ConnectionError):
                    for _ in range(100):
                        client.sendall(b"x-filler: " + b"x" * 2000 + b"\r\n")
                answers = b""
                with contextlib.suppress(ConnectionError):
                    while got := client.recv(4096):
                        answers += got
            assert b"200 OK" in answers or not first
            assert answers.count(b"HTTP/1.1 200") <= bool(first)


@pytest.mark.parametrize("line", [b"", b"\r\nx-more: "])
def test_trailers_without_end_are_refused(task: MakeTask, line: bytes) -> None:
    """What comes after a body is bounded as a head is, in one line or in many; it was kept, gigabytes of it."""
    with listening(task()) as url:
        address = httpx.URL(url).host, httpx.URL(url).port
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(head("transfer-encoding: chunked") + b"1\r\n{\r\n0\r\nx-more: ")
            answer = b""
            with contextlib.suppress(ConnectionError):
                for _ in range(200):
                    client.sendall(b"x" * 2000 + line)
            with contextlib.suppress(ConnectionError):
                client.settimeout(5)
                answer = client.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert httpx.get(f"{url}/models").status_code == 200


class Three(BoundedProtocol):
    """Three connections, idle for three seconds at most."""

    limits = Limits(connections=3, idle_s=3.0, look_s=0.1)


def test_the_longest_idle_connection_gives_way(task: MakeTask) -> None:
    """With room for three, a fourth takes the place of the first; when the idle time is over all places are free."""
    with running_app(make_app(task(), schedule=False), Three) as url, ExitStack() as stack:
        address = httpx.URL(url).host, httpx.URL(url).port
        clients = []
        for _ in range(4):
            clients.append(stack.enter_context(socket.create_connection(address, timeout=20)))
            _ask(clients[-1])
        until(lambda: _closed(clients[0]))
        _ask(clients[1])
        clients[2].sendall(b"GET /livez HT")  # half a line is no request
        assert [client.recv(1) for client in clients[2:]] == [b"", b""]


def _ask(client: socket.socket) -> None:
    """Send a request and read its whole answer, which comes in one piece or two."""
    client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\nok\n"):
        answer += client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200")


def _closed(client: socket.socket) -> bool:
    """Read what is there, without waiting; return whether the server has closed the connection."""
    try:
        while client.recv(4096, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    return True


@pytest.mark.anyio
async def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_bug_of_ours() -> None:
    """Nothing is held for it, and it ends in a refusal: a traceback for each would let anybody fill the log."""
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    with pytest.raises(RefusalError, match="left"):
        await body.read_body(Request({"type": "http", "headers": []}, receive), 100)
    assert body.in_memory.bytes == 0


@pytest.mark.anyio
async def test_bodies_under_way_have_a_bound_together(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it a body is refused with 503; once the others are read, the same one is taken."""
    monkeypatch.setattr(body.in_memory, "bytes", body.MOST_IN_MEMORY)
    async with serving(task()) as (client, _):
        refused = await client.post("/v1/classify", json={"input": "a"})
        body.in_memory.bytes = 0
        taken = await client.post("/v1/models/x", json={"input": "a"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert ErrorBody.model_validate(refused.json()).error.code == "overloaded"
    assert taken.status_code != 503
    assert body.in_memory.bytes == 0


@pytest.mark.anyio
async def test_a_number_that_is_too_long_is_no_version(task: MakeTask) -> None:
    """Neither one that no file's name can hold nor one that Python will not read is an error of ours."""
    async with serving(task()) as (client, _):
        answers = [await client.get(f"/versions/{number}/report.html") for number in ("9" * 300, "9" * 5000, "x")]
    assert [ErrorBody.model_validate(answer.json()).error.code for answer in answers] == ["not_found"] * 3
    assert {answer.status_code for answer in answers} == {404}


@pytest.mark.parametrize(
    ("model", "start", "end"),
    [
        (ClassifyRequest, b'{"input":[', b"]}"),
        (ClassifyRequest, b'{"input":[[', b"]]}"),
        (ExplainRequest, b'{"input":[', b"]}"),
        (ChatRequest, b'{"model":"m","messages":[', b"]}"),
        (ChatRequest, b'{"model":"m","messages":[{"role":"user","content":[', b"]}]}"),
        (ChatRequest, b'{"model":"m","messages":[{"role":"user"}],"tools":[', b"]}"),
        (ChatRequest, b'{"model":"m","messages":[{"role":"user"}],"functions":[', b"]}"),
    ],
)
def test_a_list_of_wrong_items_is_no_list_of_errors(model: type[BaseModel], start: bytes, end: bytes) -> None:
    """However many items are wrong, the errors that are made are few: four megabytes of them took four gigabytes."""
    with pytest.raises(ValidationError) as told:
        model.model_validate_json(start + b",".join([b"1"] * 1000) + end)
    assert told.value.error_count() < 5


def test_a_body_of_unknown_fields_is_not_told_field_by_field() -> None:
    """Of a hundred thousand no object each is made, which held everybody else up for a second."""
    sent = json.dumps({"input": "x"} | {f"k{i}": 1 for i in range(100_000)}).encode()
    with pytest.raises(ValidationError) as told:
        ClassifyRequest.model_validate_json(sent)
    tracemalloc.start()
    try:
        refusal = body.explain(told.value, sent)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert str(refusal) == "the body has 100,000 unknown or wrong fields"


@pytest.mark.anyio
@pytest.mark.parametrize("times", [60, pytest.param(3000, marks=pytest.mark.slow)])
async def test_mangled_bodies_are_the_callers_fault(
    task: MakeTask, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Whatever bytes come, the answer is an error object that blames the caller, or an answer."""
    monkeypatch.setenv("TRACER_SERVE_ADMIN_KEY", "an-operators-own-key")
    stub_llm.default = "blue"
    chance = random.Random(5)
    spec = task(server={"forward": False})
    make_version(spec)
    async with serving(spec) as (client, _):
        for i in range(times):
            route = ROUTES[i % len(ROUTES)]
            headers = {"content-type": "application/json", "authorization": "Bearer an-operators-own-key"}
            answer = await client.post(route, content=mangled(chance), headers=headers)
            assert answer.status_code < 500, (route, answer.text)
            if answer.status_code >= 400:
                ErrorBody.model_validate(answer.json())


def mangled(chance: random.Random) -> bytes:
    """Return a sensible body with a few bytes changed, a value of another kind, nesting without end, or noise."""
    message = {"role": "user", "content": HANDLED}
    sensible = {"input": [HANDLED, "b"], "model": "colours", "messages": [message], "id": "x", "version": 1}
    kind = chance.randrange(4)
    if kind == 0:
        return bytes(chance.randrange(256) for _ in range(chance.randrange(200)))
    if kind == 1:
        opening = chance.choice(["[", '{"a":', '{"input":', '{"messages":['])
        return (opening * chance.choice([10, 5000])).encode()
    if kind == 2:
        odd: Any = chance.choice([None, True, 1e308, -1, "", "\x00", "\ud800", [], [[]], {}, {"a": {}}, 10**400])
        chosen = chance.choice(list(sensible))
        return json.dumps({chosen: sensible[chosen], chance.choice(list(sensible)): odd}).encode()
    written = bytearray(json.dumps({key: sensible[key] for key in chance.sample(list(sensible), 2)}).encode())
    for _ in range(chance.randrange(1, 4)):
        written[chance.randrange(len(written))] = chance.randrange(256)
    return bytes(written)
