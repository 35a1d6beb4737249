"""The embeddings client against a real HTTP server."""

import gzip
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.components.embedders.conftest import Endpoint
from tests.support.raw_server import Reply, canned, endless, raw_server
from tracer_serve.components.embedders.http import HttpEmbedder
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, EmbedderError, PluginError

Make = Callable[..., HttpEmbedder]


@pytest.fixture
def make(endpoint: Endpoint) -> Iterator[Make]:
    """Build embedders of the endpoint that pause for milliseconds between tries; close them at the end."""
    made: list[HttpEmbedder] = []

    def build(**params: Any) -> HttpEmbedder:
        built = embedders.build("http", {"base_url": endpoint.url, "model": "m", **params})
        assert isinstance(built, HttpEmbedder)
        built.retry.base_s = 0.001
        made.append(built)
        return built

    yield build
    for embedder in made:
        embedder.close()


def test_vectors_come_back_in_order_and_unit_norm(endpoint: Endpoint, make: Make) -> None:
    """Batches are cut, the answer's own order does not matter, vectors have length 1."""
    vectors = make(batch_size=2).embed(["a", "bbb", "", "cc", "dddd"])
    expected = np.array([[1, 1, 0], [3, 1, 0], [0, 1, 0], [2, 1, 0], [4, 1, 0]], np.float32)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert vectors.dtype == np.float32
    assert [len(body["input"]) for _, body in endpoint.seen] == [2, 2, 1]


def test_half_a_surrogate_pair_can_be_sent(endpoint: Endpoint, make: Make) -> None:
    """One cut emoji among the traces fails no batch."""
    make().embed(["a", "cut \ud83d"])
    assert [body["input"] for _, body in endpoint.seen] == [["a", "cut \ufffd"]]


def test_request_is_what_the_api_asks_for(endpoint: Endpoint, make: Make) -> None:
    """Path, model, format, dimensions and key are sent; without a key there is no header."""
    make(base_url=endpoint.url + "/", api_key="secret", dimensions=3).embed(["a"])
    make().embed(["a"])
    (headers, body), (bare, plain) = endpoint.seen
    assert headers["path"] == "/v1/embeddings"
    assert headers["authorization"] == "Bearer secret"
    assert body == {"model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 3}
    assert "authorization" not in bare
    assert "dimensions" not in plain


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_tried_again(endpoint: Endpoint, make: Make, status: int) -> None:
    """A fault that may pass is followed by another try, after the wait the endpoint asks for."""
    endpoint.script = [(status, {"error": "busy"}, {"retry-after": "0.001"}), (status, b"", {"retry-after": "soon"})]
    assert make().embed(["a"]).shape == (1, 3)
    assert len(endpoint.seen) == 3


def test_lasting_faults_end_in_a_typed_error(endpoint: Endpoint, make: Make) -> None:
    """After the last try the error names endpoint and status, and passes on when to come again."""
    endpoint.script = [(503, {"error": "down"}, {})] * 2 + [(503, {"error": "down"}, {"retry-after": "7"})]
    with pytest.raises(EmbedderError, match=r"503.*check embedder\.base_url") as caught:
        make(retries=2).embed(["a"])
    assert len(endpoint.seen) == 3
    assert (caught.value.http_status, caught.value.retry_after_s) == (503, 7.0)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_refusals_are_not_repeated(endpoint: Endpoint, make: Make, status: int) -> None:
    """What no retry mends is asked once, and the key is not in the error."""
    endpoint.script = [(status, {"error": "no"}, {})]
    with pytest.raises(EmbedderError, match=str(status)) as caught:
        make(api_key="s3cr3t-key").embed(["a"])
    assert len(endpoint.seen) == 1
    assert "s3cr3t-key" not in str(caught.value)


def test_a_wait_too_long_for_a_request_is_not_waited(endpoint: Endpoint, make: Make) -> None:
    """An endpoint that asks for an hour is an error at once."""
    endpoint.script = [(429, {}, {"retry-after": "3600"})]
    with pytest.raises(EmbedderError) as caught:
        make().embed(["a"])
    assert caught.value.retry_after_s == 3600
    assert len(endpoint.seen) == 1


def _rows(*rows: tuple[int, Any]) -> dict[str, Any]:
    return {"data": [{"index": i, "embedding": vector} for i, vector in rows]}


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        [],
        {"data": None},
        {"data": [{"embedding": [1.0]}]},
        _rows((0, [1.0, 2.0])),
        _rows((0, [1.0]), (0, [2.0])),
        _rows((0, [1.0]), (2, [2.0])),
        _rows((0, [1.0, 2.0]), (1, [1.0])),
        _rows((0, "AAAA"), (1, "AAAA")),
        _rows((0, 1.0), (1, 2.0)),
        _rows((0, [0.0]), (1, [1.0])),
        _rows((0, [float("nan")]), (1, [1.0])),
    ],
)
def test_nonsense_is_never_taken_for_vectors(endpoint: Endpoint, make: Make, body: Any) -> None:
    """An answer that is not one sound vector per text is a typed error."""
    endpoint.script = [(200, body, {})]
    with pytest.raises(EmbedderError):
        make().embed(["a", "b"])


def test_lengths_that_change_between_batches_are_refused(endpoint: Endpoint, make: Make) -> None:
    """Vectors of two lengths are an error, not a broken array."""
    endpoint.script = [(200, _rows((0, [1.0, 2.0])), {})]
    with pytest.raises(EmbedderError, match="different lengths"):
        make(batch_size=1).embed(["a", "b"])


def test_an_endpoint_that_is_not_there_is_named(make: Make) -> None:
    """A refused connection is a typed error with the URL in it."""
    with pytest.raises(EmbedderError, match=r"http://127\.0\.0\.1:9/v1.*cannot be reached"):
        make(base_url="http://127.0.0.1:9/v1", retries=1).embed(["a"])


@pytest.mark.parametrize("url", ["http://[", "ftp://host/v1", "https://me:key@host/v1"])
def test_a_base_url_that_is_none_is_refused(make: Make, url: str) -> None:
    """What is no http(s) URL, or holds a key, is refused before the first request."""
    with pytest.raises(PluginError, match="base_url"):
        make(base_url=url)


@pytest.mark.parametrize(
    "reply",
    [
        canned(gzip.compress(b" " * 100 * 2**20), content_encoding="gzip"),
        canned(b"[" * 20 * 2**20),
        endless,
    ],
    ids=["bomb", "plain", "endless"],
)
def test_an_oversized_answer_is_not_read(make: Make, reply: Reply) -> None:
    """Reading stops at 1 MiB decoded for a few texts, within a few MiB of memory."""
    with raw_server(reply) as host:
        model = make(base_url=f"http://{host}/v1", retries=0, timeout_s=10)
        tracemalloc.start()
        with pytest.raises(EmbedderError, match="1 MiB"):
            model.embed(["a"])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_dripping_endpoint_times_out(make: Make) -> None:
    """A try ends after `timeout_s` even if a byte arrives now and then."""

    def drip(stream: socket.socket) -> None:
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(400):
            stream.sendall(b" ")
            time.sleep(0.05)

    with raw_server(drip) as host, pytest.raises(EmbedderError, match=r"0\.3 s") as caught:
        make(base_url=f"http://{host}/v1", retries=0, timeout_s=0.3).embed(["a"])
    assert caught.value.reason == "timeout"


def test_a_quoted_key_is_masked(make: Make) -> None:
    """An error body that quotes the key does not reach the message."""
    with (
        raw_server(canned(b"you sent s3cr3t-key-12", status="299 Odd")) as host,
        pytest.raises(EmbedderError) as caught,
    ):
        make(base_url=f"http://{host}/v1", api_key="s3cr3t-key-12").embed(["a"])
    assert "s3cr3t" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_large_batch_may_have_a_large_answer(endpoint: Endpoint, make: Make) -> None:
    """The limit grows with the batch: 64 vectors of 4,096 numbers are over 1 MiB."""
    rows = _rows(*((i, [0.123456789012345] * 4096) for i in range(64)))
    endpoint.script = [(200, rows, {})]
    assert make().embed(["a"] * 64).shape == (64, 4096)


def test_a_slow_endpoint_times_out(endpoint: Endpoint, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try ends after `timeout_s`."""
    monkeypatch.setattr("socketserver.BaseServer.handle_error", lambda *_: None)
    endpoint.answer = lambda *_: __import__("time").sleep(0.3) or (200, {}, {})  # type: ignore[method-assign]
    with pytest.raises(EmbedderError, match="no answer in time"):
        make(timeout_s=0.05, retries=0).embed(["a"])


def test_empty_batch_asks_nobody(endpoint: Endpoint, make: Make) -> None:
    """No texts, no request; the width is what was seen before."""
    model = make()
    assert model.embed([]).shape == (0, 0)
    model.embed(["a"])
    assert model.embed([]).shape == (0, 3)
    assert len(endpoint.seen) == 1


def test_pairs_are_refused(make: Make) -> None:
    """A pair is for the pair embedder."""
    with pytest.raises(BadInputError, match="PairEmbedder"):
        make().embed([("a", "b")])


def test_fingerprint_names_endpoint_and_model_not_the_key(make: Make) -> None:
    """Another endpoint, model or length is another embedder; another key, batch or timeout is not."""
    same = {make().fingerprint, make(api_key="k", timeout_s=3, batch_size=1, retries=0).fingerprint}
    assert len(same) == 1
    others = {make(model="n").fingerprint, make(base_url="http://x").fingerprint, make(dimensions=2).fingerprint}
    assert len(others | same) == 4
    assert make().fit(["a"]).fingerprint in same


def test_registered(endpoint: Endpoint) -> None:
    """The YAML finds it by name."""
    built = embedders.build("http", {"base_url": endpoint.url, "model": "m"})
    assert isinstance(built, HttpEmbedder)
    built.close()
