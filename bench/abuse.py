"""Abusive callers with a key, each a function that sends requests without end; for `bench.fairness`."""

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.server.worlds import BLUE, HANDLED, RED, unknown

GREEDY, OTHER = "key-of-the-greedy-caller", "key-of-the-other-caller"
_LIST = [f"{text} {i}" for i in range(43) for text in RED + BLUE][:1024]
_FOREIGN = {"model": "another-model", "messages": [{"role": "user", "content": "write a poem"}]}
_BODY = 3_000_000


def ask(connections: int, bodies: list[Any], path: str, url: str) -> None:
    """Send requests on some connections, each after the answer to the one before."""
    contents = itertools.cycle([json.dumps(one).encode() for one in bodies])

    async def forever(client: httpx.AsyncClient) -> None:
        while True:
            with suppress(httpx.HTTPError):
                await client.post(path, content=next(contents))

    async def run() -> None:
        limits = httpx.Limits(max_connections=connections)
        headers = {"authorization": f"Bearer {GREEDY}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
            await asyncio.gather(*(forever(client) for _ in range(connections)))

    asyncio.run(run())


def send(connections: int, first: bytes, then: bytes, url: str) -> None:
    """Send bytes on some connections as fast as possible, and read nothing."""
    where = urlsplit(url)

    def one() -> None:
        while True:
            with suppress(OSError), socket.create_connection((where.hostname, where.port), timeout=10) as client:
                client.sendall(first)
                while True:
                    client.sendall(then)

    for _ in range(connections):
        threading.Thread(target=one, daemon=True).start()
    threading.Event().wait()


def _inputs(inputs: list[Any]) -> list[dict[str, Any]]:
    return [{"input": one} for one in inputs]


def _head(*lines: str) -> bytes:
    usual = ("POST /v1/classify HTTP/1.1", "host: localhost", f"authorization: Bearer {GREEDY}")
    return "\r\n".join((*usual, "content-type: application/json", *lines, "", "")).encode()


_TEXT = json.dumps({"input": HANDLED}).encode()
_PIPELINED = _head(f"content-length: {len(_TEXT)}") + _TEXT


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of abuse.

    Parameters
    ----------
    abuse : asks the server at a URL without end
    deferred : whether the other caller's texts, beside it, are deferred
    """

    abuse: Callable[[str], None]
    deferred: bool = False


_CLASSIFY = "/v1/classify"
KINDS: dict[str, Kind] = {
    "lists of 1,024 handled texts, 8 connections": Kind(partial(ask, 8, _inputs([_LIST]), _CLASSIFY)),
    "single handled texts, 64": Kind(partial(ask, 64, _inputs([HANDLED]), _CLASSIFY)),
    "single deferred texts, 200": Kind(partial(ask, 200, _inputs([unknown(i) for i in range(1_000)]), _CLASSIFY), True),
    "lists of 256 deferred texts, 8": Kind(
        partial(ask, 8, _inputs([[unknown(256 * n + i) for i in range(256)] for n in range(8)]), _CLASSIFY), True
    ),
    "forwarded calls, 100": Kind(partial(ask, 100, [_FOREIGN], "/v1/chat/completions"), True),
    "bodies that are no JSON, 32": Kind(partial(ask, 32, ["x" * 100_000], _CLASSIFY)),
    "pipelined texts, answers unread, 8": Kind(partial(send, 8, b"", _PIPELINED * 50)),
    "heads without end, 32": Kind(partial(send, 32, b"GET / HTTP/1.1\r\n", b"x-filler: xxxxxxxx\r\n" * 50)),
    "bodies in pieces of a byte, 32": Kind(partial(send, 32, _head("transfer-encoding: chunked"), b"1\r\nx\r\n" * 200)),
}
WELCOME: list[tuple[str, Any]] = [
    (_CLASSIFY, {"input": _LIST}),
    (_CLASSIFY, {"input": [unknown(-1 - i) for i in range(256)]}),
    ("/v1/chat/completions", _FOREIGN),
]
"""What a well-behaved caller sends, by path."""
