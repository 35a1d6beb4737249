"""What one connection may cost, tested over real sockets against our protocol on uvicorn."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.server.chat.conftest import running_app
from tests.support.waiting import until
from tracer_serve.server.http.connection_limits import BoundedProtocol
from tracer_serve.server.http.idle_connections import Limits, most_connections

GET = b"GET / HTTP/1.1\r\n\r\n"
BIG = 4_000_000


@dataclass
class Seen:
    """What reached the application, and the longest queue of a connection."""

    bodies: list[tuple[str, str]] = field(default_factory=list)
    queued: int = 0
    received: int = 0
    connections: set[Any] = field(default_factory=set)
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def echoing(limits: Limits | None = None) -> Iterator[tuple[tuple[str, int], Seen]]:
    """Run an application that answers with what it was asked; ``/big`` answers with megabytes."""
    seen = Seen()

    class Watched(BoundedProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            seen.received += len(data)

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            seen.queued = max(seen.queued, len(self.pipeline))
            seen.connections = self.connections

    Watched.limits = limits or Limits()

    async def echo(request: Request) -> Response:
        body = await request.body()
        seen.bodies.append((request.url.path, body.decode()))
        return JSONResponse({"path": request.url.path, "body": body.decode()})

    async def big(_: Request) -> Response:
        return Response(b"x" * BIG)

    app = Starlette(routes=[Route("/big", big), Route("/{path:path}", echo, methods=["GET", "POST"])])
    with running_app(app, Watched) as url:
        host, port = url.removeprefix("http://").split(":")
        yield (host, int(port)), seen


def answers(stream: IO[bytes], count: int) -> list[dict[str, str]]:
    """Read so many JSON answers."""
    found = []
    for _ in range(count):
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        length = 0
        while (line := stream.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            length = int(value) if name == "content-length" else length
        found.append(json.loads(stream.read(length)))
    return found


def test_pipelined_requests_are_queued_a_few_at_a_time() -> None:
    """Of 5,000 requests on one connection at most 64 wait at a time, and all are answered in order."""
    with echoing() as (address, seen), socket.create_connection(address, timeout=60) as client:
        sent = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % i for i in range(5_000))
        writer = threading.Thread(target=client.sendall, args=(sent,))
        writer.start()
        found = answers(client.makefile("rb"), 5_000)
        writer.join()
    assert [one["path"] for one in found] == [f"/{i}" for i in range(5_000)]
    assert seen.queued <= 64


def test_a_pipelined_body_in_many_packets_arrives_whole() -> None:
    """A request with a large body behind another one is read to its end, also where the queue was full."""
    body = "x" * 300_000
    with echoing() as (address, seen), socket.create_connection(address, timeout=60) as client:
        client.sendall(GET * 100 + b"POST /p HTTP/1.1\r\ncontent-length: 300000\r\n\r\n" + body.encode() + GET)
        found = answers(client.makefile("rb"), 102)
    assert found[100] == {"path": "/p", "body": body}
    assert seen.queued <= 64


@pytest.mark.parametrize("packet", [1, 7, 10_000], ids="packets of {} bytes".format)
@pytest.mark.parametrize("protocol", ["h2c", "H2C", "websocket", "foo", "foo, h2c"])
def test_an_upgrade_is_ignored_wherever_packets_begin(protocol: str, packet: int) -> None:
    """The request is answered in HTTP/1.1 with its whole body, which is no second request, and so is the next one."""
    body = "GET /smuggled HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"
    head = (
        "POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
        f"Upgrade: {protocol}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sent = (head + body).encode() + b"POST /b HTTP/1.1\r\ncontent-length: 2\r\n\r\nbb"
    with echoing() as (address, seen), socket.create_connection(address, timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), packet):
            client.sendall(sent[start : start + packet])
        found = answers(client.makefile("rb"), 2)
    assert found == [{"path": "/a", "body": body}, {"path": "/b", "body": "bb"}]
    assert seen.bodies == [("/a", body), ("/b", "bb")]


@pytest.mark.parametrize("protocol", ["h2c", "H2C"])
def test_no_byte_of_a_body_is_lost_wherever_the_first_packet_ends(protocol: str) -> None:
    """A header that offers HTTP/2, and the same words in the body, change nothing of the body (attack S7)."""
    body = f"GET /smuggled HTTP/1.1\r\nUpgrade: {protocol}\r\n\r\n"
    head = (
        "POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
        f"Content-Length: {len(body)}\r\nUpgrade: {protocol}\r\n\r\n"
    )
    sent = (head + body).encode()
    with echoing() as (address, seen), socket.create_connection(address, timeout=60) as client:
        stream = client.makefile("rb")
        for end in range(len(head) - len(protocol) - 6, len(head) + 8):
            before = seen.received
            client.sendall(sent[:end])
            until(lambda begun=before + end: seen.received >= begun)  # type: ignore[misc]
            client.sendall(sent[end:])
            assert answers(stream, 1) == [{"path": "/a", "body": body}], end


def test_an_upgrade_with_a_chunked_body_is_ignored() -> None:
    """The chunks are the request's body."""
    head = b"POST /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n\r\n"
    with echoing() as (address, _), socket.create_connection(address, timeout=60) as client:
        client.sendall(head)
        client.sendall(b"3\r\nabc\r\n0\r\n\r\n" + GET)
        assert answers(client.makefile("rb"), 2) == [{"path": "/a", "body": "abc"}, {"path": "/", "body": ""}]


def test_connect_is_refused() -> None:
    """No tunnel is opened, and what follows is not a request."""
    with echoing() as (address, seen), socket.create_connection(address, timeout=60) as client:
        client.sendall(b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n" + GET)
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert seen.bodies == []


@pytest.mark.parametrize("trailer", [b"x: " + b"y" * 70_000, b"x: y\r\n" * 12_000])
def test_trailers_in_the_packet_of_the_body_are_bounded(trailer: bytes) -> None:
    """70 kB of trailers are refused also where they come with the last byte of the body."""
    head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with echoing() as (address, seen), socket.create_connection(address, timeout=60) as client:
        client.sendall(head + b"1\r\nx\r\n0\r\n" + trailer + b"\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert seen.bodies == []


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Unread answers are dropped after the deadline, though uvicorn would keep them as long as the client stays."""
    limits = Limits(write_s=0.2, write_bytes=1_000_000, look_s=0.05)
    with echoing(limits) as (address, seen), socket.create_connection(address, timeout=60) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /big HTTP/1.1\r\n\r\n" * 10)
        until(lambda: seen.connections)
        until(lambda: not seen.connections)


def test_a_client_that_reads_slowly_gets_its_answer() -> None:
    """The deadline counts from one look to the next, not from the beginning."""
    limits = Limits(write_s=0.3, write_bytes=1, look_s=0.05)
    with echoing(limits) as (address, _), socket.create_connection(address, timeout=60) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        got = b""
        while len(got) < BIG:
            got += client.recv(65_536)
            threading.Event().wait(0.01)
    assert got.endswith(b"x" * 1000)


def test_idle_connections_are_closed_though_their_last_answer_is_unread() -> None:
    """Less than the transport's high-water mark is unread: no deadline is set for that, but the idle time ends it."""
    with echoing(Limits(idle_s=0.2, look_s=0.05, write_s=60)) as (address, seen), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(address)
        client.sendall(GET * 200)
        until(lambda: seen.connections)
        until(lambda: not seen.connections)


@pytest.mark.parametrize("files", [256])
def test_few_open_files_leave_room_for_connections(files: int) -> None:
    """With a hard limit of 256 open files half of them are for connections; it was one."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
from tracer_serve.server.http.idle_connections import most_connections
print(most_connections(10_000))
"""
    found = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert found == max(files // 2, files - 256)


def test_most_connections_is_what_is_wanted() -> None:
    """Enough open files change nothing."""
    assert most_connections(3) == 3


@pytest.mark.parametrize("bad", [b"no request\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000])
def test_a_refusal_comes_after_the_answers_before_it(bad: bytes) -> None:
    """A malformed or too large head behind good requests in one packet takes away none of their answers."""
    with echoing() as (address, _), socket.create_connection(address, timeout=60) as client:
        client.sendall(b"POST /a HTTP/1.1\r\ncontent-length: 1\r\n\r\na" + GET * 3 + bad)
        stream = client.makefile("rb")
        assert [one["path"] for one in answers(stream, 4)] == ["/a", "/", "/", "/"]
        assert stream.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert stream.read().endswith((b"bytes.", b"received."))


def test_a_uvicorn_that_does_not_take_the_limits_is_refused() -> None:
    """A server without limits does not start."""
    code = "from tracer_serve.server.http import connection_limits as c; c.bound_uvicorn()"
    subprocess.run([sys.executable, "-c", code], check=True)
    broken = f"""
import uvicorn
uvicorn.Config.load = lambda self: setattr(self, "http_protocol_class", object)
{code}
"""
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, check=False)
    assert "does not apply connection limits" in done.stderr
