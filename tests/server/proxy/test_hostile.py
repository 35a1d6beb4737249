"""What callers and the upstream API may cost the proxy."""

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import httpx
import pytest

from tests.server.proxy.conftest import proxying
from tests.server.proxy.test_forwarding import body, upstream_of
from tests.support.waiting import until
from tracer_serve.server.proxy.relay import Exchange

pytestmark = pytest.mark.anyio
_MB = 1_000_000


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_answer_that_expands_without_end_costs_little(tmp_path: Path, coding: str) -> None:
    """Attack S14 at the proxy: 60 kB that expand to 60 MB are forwarded, and observing them stops at one MB."""
    pack = gzip.compress if coding == "gzip" else zlib.compress
    packed = pack(json.dumps({"choices": [{"message": {"content": " " * 60 * _MB}}]}).encode())
    assert len(packed) < 64_000
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    async with upstream_of(head + packed) as (url, _):
        tracemalloc.start()
        try:
            with proxying(url, tmp_path) as proxy:  # its end waits until everything is observed
                async with (
                    httpx.AsyncClient(base_url=proxy.url, timeout=20) as client,
                    client.stream("POST", "/v1/chat/completions", json=body("x")) as got,
                ):
                    passed = b"".join([part async for part in got.aiter_raw()])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert passed == packed
    assert peak < 12 * _MB


async def test_exchanges_that_wait_have_a_bound_in_bytes(tmp_path: Path) -> None:
    """Of large calls that come faster than they are observed, some are counted as missed."""
    large = Exchange("chat/completions", b"x" * 30 * _MB, 200, httpx.Headers(), b"{}", 0.0)
    with proxying("http://127.0.0.1:9/v1", tmp_path) as proxy, proxy.observer.lock:
        proxy.observer.observe(Exchange("responses", json.dumps(body("x")).encode(), 200, httpx.Headers(), b"{}", 0.0))
        for _ in range(5):
            proxy.observer.observe(large)
        assert proxy.observer.missed == 3


@pytest.mark.parametrize("said", ['{"label": "red", "confidence": 1%s}' % ("0" * 400), '{"a": NaN}', "[" * 5_000])
async def test_an_odd_answer_does_not_end_the_observer(tmp_path: Path, said: str) -> None:
    """After an answer with a number beyond all bounds, or one without end, calls are observed as before."""
    answers = [json.dumps({"choices": [{"message": {"content": content}}]}).encode() for content in (said, "red")]
    with proxying("http://127.0.0.1:9/v1", tmp_path) as proxy:
        for answer in answers:
            asked = json.dumps(body("x")).encode()
            proxy.observer.observe(Exchange("chat/completions", asked, 200, httpx.Headers(), answer, 0.0))
        until(lambda: proxy.observer.groups.totals.calls >= 1)
