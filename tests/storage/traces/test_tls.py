"""TLS to Postgres: a certificate that cannot be trusted is named as the cause, with what to check."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.storage.traces import postgres
from tests.storage.traces.make import trace
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import open_store
from tracer_serve.storage.traces.error_advice import explain

Certify = Callable[[trustme.CA, trustme.LeafCert], str]
_HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """A Postgres server of this module's own, at first without TLS."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture
def certify(server_url: str, tmp_path: Path) -> Certify:
    """Give the server a certificate; returns the URL that trusts an authority, and checks the host."""

    def change(trusted: trustme.CA, shown: trustme.LeafCert) -> str:
        trusted.cert_pem.write_to_path(str(tmp_path / "root.pem"))
        chain = b"".join(blob.bytes() for blob in shown.cert_chain_pems)
        postgres.set_certificate(server_url, chain, shown.private_key_pem.bytes())
        return f"{server_url}?sslmode=verify-full&sslrootcert={tmp_path / 'root.pem'}"

    return change


def test_a_server_without_tls_is_named(server_url: str) -> None:
    """Where the URL wants TLS and the server has none, the error says so, and nothing is sent in the clear."""
    with pytest.raises(StoreError, match=r"TLS failed: the server speaks none.*ssl = on"):
        open_store(f"{server_url}?sslmode=verify-full&sslrootcert=system", "task")


def test_a_bad_certificate_of_postgres_is_named(certify: Certify) -> None:
    """An unknown authority, an expired certificate and another host's end in an error about TLS; a good one works."""
    authority, old = trustme.CA(), datetime.now(UTC) - timedelta(days=1)
    good = authority.issue_cert(_HOST)
    bad = {
        "unknown authority": (trustme.CA(), good, "certificate verify failed"),
        "expired": (authority, authority.issue_cert(_HOST, not_after=old), "certificate verify failed"),
        "wrong host": (authority, authority.issue_cert("example.org"), "example.org"),
    }
    for trusted, shown, said in bad.values():
        url = certify(trusted, shown)
        with pytest.raises(StoreError, match=rf"(?s)TLS failed: the server's certificate is refused.*clock.*{said}"):
            open_store(url, "task")
    store = open_store(certify(authority, good), "task")
    store.traces.add([trace("task", "over TLS")])
    assert [one.input for one in store.traces.labelled()] == ["over TLS"]
    store.close()


def test_a_server_that_wants_tls_is_named() -> None:
    """A refusal for want of encryption says which parameter to add."""
    said = 'connection failed: FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", no encryption'
    assert "sslmode=verify-full" in explain(OSError(said), "postgresql://db/tasks", sqlite=False)
