"""A loopback server that sends chosen bytes, over TCP or TLS: for answers that no web framework would send."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Reply = Callable[[socket.socket], None]
"""Writes one answer to a connection whose request was read."""


@contextmanager
def raw_server(reply: Reply, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answer each connection with `reply` in a thread of its own; yields ``host:port``.

    With a `context` the server speaks TLS. A client that refuses the certificate only ends its own connection.
    """
    stopped = threading.Event()

    def serve_one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            stream = context.wrap_socket(connection, server_side=True) if context else connection
            with stream:
                _read_request(stream)
                reply(stream)

    def accept() -> None:
        while not stopped.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(20)
                threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopped.set()
            thread.join()


def _read_request(stream: socket.socket) -> None:
    """Read a head and as much body as its Content-Length names."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += _received(stream)
    head, _, body = content.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields.get(b"content-length", b"0")) - len(body)
    while left > 0:
        left -= len(_received(stream))


def _received(stream: socket.socket) -> bytes:
    content = stream.recv(65_536)
    if not content:
        raise ConnectionAbortedError
    return content


def canned(body: bytes, status: str = "200 OK", **headers: str) -> Reply:
    """Return a reply with a status line, headers (underscores become hyphens) and a body."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    def reply(stream: socket.socket) -> None:
        stream.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode())
        stream.sendall(body)

    return reply


def endless(stream: socket.socket) -> None:
    """Send a body that never ends, as fast as the client reads."""
    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with suppress(OSError):
        while True:
            stream.sendall(chunk)
