"""TLS to the upstream API: a certificate that cannot be trusted ends the call before a key is sent."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme

from tests.server.proxy.conftest import proxying
from tests.server.proxy.test_forwarding import body
from tests.support.raw_server import canned, raw_server
from tests.support.stub_llm import StubLLM


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unknown authority", "certificate is refused (unable to get local issuer"),
        ("expired", "certificate is refused (certificate has expired)"),
        ("wrong host", "not valid for '127.0.0.1'"),
        ("valid", ""),
    ],
)
def test_a_bad_certificate_of_upstream_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, said: str
) -> None:
    """The caller gets a 502 that says what is wrong with the certificate; upstream sees no request and no key."""
    authority, asked = trustme.CA(), list[socket.socket]()
    old = datetime.now(UTC) - timedelta(days=1)
    names = ("example.org",) if kind == "wrong host" else ("127.0.0.1",)
    certificate = authority.issue_cert(*names, not_after=old if kind == "expired" else None)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    if kind != "unknown authority":
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def reply(stream: socket.socket) -> None:
        asked.append(stream)
        canned(b'{"choices": []}')(stream)

    with (
        raw_server(reply, context) as host,
        proxying(f"https://{host}/v1", tmp_path) as proxy,
        httpx.Client(base_url=proxy.url, timeout=30) as client,
    ):
        got = client.post("/v1/chat/completions", json=body("x"), headers={"authorization": "Bearer sk-of-the-caller"})
    if kind == "valid":
        assert (got.status_code, len(asked)) == (200, 1)
        return
    message = got.json()["error"]["message"]
    assert (got.status_code, asked) == (502, [])
    assert said in message
    assert "check the host in --upstream" in message
    assert "SSL_CERT_FILE" in message


def test_plain_http_behind_https_is_named(stub_llm: StubLLM, tmp_path: Path) -> None:
    """An https URL of a server that speaks plain HTTP says so."""
    with (
        proxying(stub_llm.url.replace("http:", "https:"), tmp_path) as proxy,
        httpx.Client(base_url=proxy.url, timeout=30) as client,
    ):
        got = client.post("/v1/chat/completions", json=body("x"))
    assert got.status_code == 502
    assert "TLS failed" in got.json()["error"]["message"]
    assert "http:// in --upstream" in got.json()["error"]["message"]
