"""Endpoints that attack the process that asks them: bombs, endless bodies, bad certificates, quoted keys."""

import asyncio
import gc
import gzip
import json
import logging
import socket
import ssl
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from tests.components.teachers.conftest import KEY, MakeTeacher
from tests.support.raw_server import Reply, canned, endless, raw_server
from tests.support.stub_llm import StubLLM
from tracer_serve.errors import TeacherError

pytestmark = pytest.mark.anyio
_MIB = 2**20


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what a failed TLS handshake leaves: asyncio of Python 3.11 closes it only when freed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _answer(padding: int) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "lost_card"}}], "padding": " " * padding}).encode()


def _gzip(content: bytes, times: int = 1, **head: str) -> Reply:
    for _ in range(times):
        content = gzip.compress(content)
    return canned(content, content_encoding=", ".join(["gzip"] * times), **head)


# made when they are used: a hundred MiB take their time to pack
BOMBS: dict[str, Callable[[], Reply]] = {
    "gzip": lambda: _gzip(_answer(100 * _MIB)),
    "deflate": lambda: canned(zlib.compress(_answer(100 * _MIB)), content_encoding="deflate"),
    "twice": lambda: _gzip(_answer(100 * _MIB), 2),
    "plain": lambda: canned(_answer(20 * _MIB)),
    "endless": lambda: endless,
    "error page": lambda: _gzip(b" " * 100 * _MIB, status="500 Oops"),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_an_oversized_answer_costs_neither_memory_nor_the_event_loop(teacher: MakeTeacher, bomb: str) -> None:
    """A body over 1 MiB decoded ends in a typed error, within a few MiB of memory and without a stalled loop."""
    stalls: list[float] = []

    async def heartbeat() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.005)
            stalls.append(time.perf_counter() - start)

    with raw_server(BOMBS[bomb]()) as host:
        async with teacher(base_url=f"http://{host}/v1", retries=0, timeout_s=10) as llm:
            beat = asyncio.create_task(heartbeat())
            tracemalloc.start()
            with pytest.raises(TeacherError) as caught:
                await llm.label("Where is my card?")
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            beat.cancel()
    assert caught.value.reason == "unavailable"
    assert "content encoding" in str(caught.value) if bomb == "twice" else "1 MiB" in str(caught.value)
    assert peak < 8 * _MIB
    assert max(stalls) < 0.5  # 1.3 s before, for 100 MiB


@pytest.mark.parametrize("reply", [canned(_answer(500_000)), _gzip(_answer(500_000))])
async def test_a_large_answer_within_the_limit_is_read(teacher: MakeTeacher, reply: Reply) -> None:
    """Half a MiB, compressed or not, is an answer like any other."""
    with raw_server(reply) as host:
        async with teacher(base_url=f"http://{host}/v1") as llm:
            assert (await llm.label("x")).label == "lost_card"


async def test_a_broken_compressed_answer_is_a_typed_error(teacher: MakeTeacher) -> None:
    """What says gzip and is none ends in an error that names the endpoint."""
    with raw_server(canned(b"not gzip at all", content_encoding="gzip")) as host:
        async with teacher(base_url=f"http://{host}/v1", retries=0) as llm:
            with pytest.raises(TeacherError, match=f"{host}.*gzip") as caught:
                await llm.label("x")
    assert caught.value.reason == "unavailable"


@pytest.mark.parametrize("status", ["299 Odd", "302 Found", "400 Bad Request", "429 Slow down", "999 What"])
@pytest.mark.parametrize("form", ["text", "json", "credentials"])
async def test_a_status_that_quotes_the_key_shows_it_nowhere(
    teacher: MakeTeacher, caplog: pytest.LogCaptureFixture, status: str, form: str
) -> None:
    """Whatever status a body comes with, a key inside it is masked in the error and in every log line."""
    quoted = {
        "text": f"you sent {KEY}".encode(),
        "json": json.dumps({"error": {"message": f"key {KEY}", "code": KEY}}).encode(),
        "credentials": b"unknown credentials s3cr3t-part-of-a-header",
    }[form]
    headers = {"x-auth": "Scheme s3cr3t-part-of-a-header"}
    with caplog.at_level(logging.DEBUG), raw_server(canned(quoted, status=status)) as host:
        async with teacher(base_url=f"http://{host}/v1", retries=0, headers=headers) as llm:
            with pytest.raises(TeacherError) as caught:
                await llm.label("x")
    shown = f"{caught.value} {caught.value.answer} {caplog.text}"
    assert KEY not in shown
    assert "s3cr3t" not in shown


async def test_an_answer_that_repeats_the_text_is_not_quoted(teacher: MakeTeacher) -> None:
    """An unusable answer is described, not quoted: models often repeat the text, and messages are logged."""
    body = json.dumps({"choices": [{"message": {"content": "My IBAN is CH93 0076 2011, so: lost"}}]}).encode()
    with raw_server(canned(body)) as host:
        async with teacher(base_url=f"http://{host}/v1", retries=0) as llm:
            with pytest.raises(TeacherError, match="none of the 3 labels") as caught:
                await llm.label("My IBAN is CH93 0076 2011")
    assert "CH93" not in str(caught.value)
    assert caught.value.answer == "My IBAN is CH93 0076 2011, so: lost"


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unknown authority", "self.signed certificate|unable to get local issuer"),
        ("expired", "certificate has expired"),
        ("wrong host", "not valid for '127.0.0.1'"),
        ("valid", ""),
    ],
)
async def test_a_bad_certificate_is_named(
    teacher: MakeTeacher, monkeypatch: pytest.MonkeyPatch, tmp_path: object, kind: str, said: str
) -> None:
    """An invalid certificate is an error that says what is wrong with it; nothing is sent before it was checked."""
    authority, asked = trustme.CA(), []
    names = ("example.org",) if kind == "wrong host" else ("127.0.0.1",)
    old = datetime.now(UTC) - timedelta(days=1)
    certificate = authority.issue_cert(*names, not_after=old if kind == "expired" else None)
    bundle = f"{tmp_path}/authority.pem"
    authority.cert_pem.write_to_path(bundle)
    if kind != "unknown authority":
        monkeypatch.setenv("SSL_CERT_FILE", bundle)

    def reply(stream: socket.socket) -> None:
        asked.append(stream)
        canned(_answer(0))(stream)

    with raw_server(reply, _context(certificate)) as host:
        async with teacher(base_url=f"https://{host}/v1", retries=0) as llm:
            if kind == "valid":
                assert (await llm.label("x")).label == "lost_card"
                return
            with pytest.raises(TeacherError, match=said) as caught:
                await llm.label("x")
    assert caught.value.reason == "unavailable"
    assert "certificate" in str(caught.value)
    assert "SSL_CERT_FILE" in str(caught.value)
    assert not asked


async def test_plain_http_behind_https_is_named(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """An https URL to a port that speaks plain HTTP says so."""
    async with teacher(base_url=stub_llm.url.replace("http:", "https:"), retries=0) as llm:
        with pytest.raises(TeacherError, match=r"TLS failed .* write http:// in base_url"):
            await llm.label("x")


async def test_a_handshake_that_never_ends_times_out(teacher: MakeTeacher) -> None:
    """A server that accepts a connection and says nothing costs `timeout_s`, not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/v1"
        async with teacher(base_url=url, retries=0, timeout_s=0.3) as llm:
            with pytest.raises(TeacherError, match=r"0\.3 s") as caught:
                await llm.label("x")
    assert caught.value.reason == "timeout"
