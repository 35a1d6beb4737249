"""TLS to S3: a certificate that cannot be trusted is named as the cause, with what to check."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import trustme
from fsspec import get_filesystem_class

from tests.storage.versions import object_store
from tests.support.raw_server import canned, raw_server
from tracer_serve.errors import ArtifactError
from tracer_serve.storage.versions import Objects

_HOST = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that the S3 client trusts."""
    if reason := object_store.missing():
        pytest.skip(reason)
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "root.pem"))
    for name, value in (object_store.variables(0) | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "root.pem"))
    monkeypatch.setattr(get_filesystem_class("s3"), "retries", 1)
    get_filesystem_class("s3").clear_instance_cache()  # a client keeps the environment that it was made in
    return made


@pytest.mark.parametrize("kind", ["unknown authority", "expired", "wrong host"])
def test_a_bad_certificate_of_s3_is_named(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """An unknown authority, an expired certificate and another host's end in an error about the certificate."""
    shown = {
        "unknown authority": lambda: trustme.CA().issue_cert(_HOST),
        "expired": lambda: authority.issue_cert(_HOST, not_after=datetime.now(UTC) - timedelta(days=1)),
        "wrong host": lambda: authority.issue_cert("example.org"),
    }[kind]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.configure_cert(context)
    with raw_server(canned(b"{}"), context) as host:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{host}")
        with pytest.raises(ArtifactError, match=r"certificate is refused.*AWS_ENDPOINT_URL.*clock.*AWS_CA_BUNDLE"):
            Objects("s3://versions/folder").write("name", b"content")


def test_a_private_authority_is_trusted_where_it_is_named(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With AWS_CA_BUNDLE a store with a certificate of that authority is written and read."""
    leaf = authority.issue_cert(_HOST)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    with object_store.server("-s", "-c", str(tmp_path / "both.pem"), "-k", str(tmp_path / "both.pem")) as (found, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", found["AWS_ENDPOINT_URL"].replace("http://", "https://"))
        object_store.make_bucket()
        objects, name = Objects(f"s3://{object_store.BUCKET}/{uuid4().hex}"), "name"
        objects.write(name, b"content")
        assert objects.read(name) == b"content"
