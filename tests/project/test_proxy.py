"""The proxy settings that we ship: read by the proxy itself, and true of this server."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.project.test_deploy import DEPLOY
from tests.server.chat.conftest import listening
from tests.server.worlds import DEFERRED, HANDLED, make_task, make_version
from tests.support.server_process import free_port
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until
from tracer_serve.config.server import ServerSpec
from tracer_serve.server.http.idle_connections import Limits

_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin"
NGINX, HAPROXY = (shutil.which(name, path=_PATH) for name in ("nginx", "haproxy"))
CONF = (DEPLOY / "nginx" / "tracer-serve.conf").read_text(encoding="utf-8")
ENVOY = yaml.safe_load((DEPLOY / "envoy" / "envoy.yaml").read_text(encoding="utf-8"))


def seconds(setting: str) -> float:
    """Return a duration of nginx's or Envoy's."""
    return float(setting.removesuffix("s"))


def test_the_settings_fit_the_server() -> None:
    """Bodies up to the default limit pass, and a proxy drops idle connections before the server does."""
    limit = ServerSpec().max_body_mb
    assert f"client_max_body_size {limit:.0f}m;" in CONF
    assert seconds(re.findall(r"keepalive_timeout (\S+);", CONF)[0]) < Limits().idle_s
    (listener,) = ENVOY["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {one["name"]: one["typed_config"] for one in manager["http_filters"]}
    assert filters["envoy.filters.http.buffer"]["max_request_bytes"] == limit * 1_000_000
    (cluster,) = ENVOY["static_resources"]["clusters"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert seconds(options["common_http_protocol_options"]["idle_timeout"]) < Limits().idle_s


def _make_certificate(folder: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *made]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _nginx(folder: Path, upstream: int, port: int) -> list[str]:
    """Return the command of an nginx with our settings on a port of its own."""
    _make_certificate(folder)
    changed = (
        CONF.replace("127.0.0.1:3000", f"127.0.0.1:{upstream}")
        .replace("listen 443 ssl http2", f"listen 127.0.0.1:{port} ssl http2")
        .replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
        .replace("/etc/ssl/certs/tracer.pem", f"{folder}/cert.pem")
        .replace("/etc/ssl/private/tracer.key", f"{folder}/key.pem")
        .replace("tracer.example.com", "localhost")
        .replace("client_header_timeout 10s", "client_header_timeout 1s")
    )
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = "".join(f"{place}_temp_path {folder}/{place};" for place in places)
    main = f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; {temp}\n{changed}\n}}"
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


HAPROXY_CFG = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 630s
    timeout http-request 1s
    option http-keep-alive
frontend https
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2,http/1.1
    http-request deny deny_status 404 if {{ path /metrics }} or {{ path_sub /admin/ }} or {{ path_end /metrics }}
    http-request deny deny_status 413 if {{ req.body_size gt 4000000 }}
    default_backend tracer
backend tracer
    http-reuse safe
    server tracer 127.0.0.1:{upstream}
"""


def _haproxy(folder: Path, upstream: int, port: int) -> list[str]:
    """Return the command of an HAProxy with settings such as ours for nginx."""
    _make_certificate(folder)
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both, encoding="ascii")
    (folder / "haproxy.cfg").write_text(HAPROXY_CFG.format(folder=folder, port=port, upstream=upstream))
    return [str(HAPROXY), "-db", "-f", str(folder / "haproxy.cfg")]


@contextmanager
def in_front(folder: Path, command: list[str], check: str, port: int) -> Iterator[httpx.Client]:
    """Run a proxy with a certificate of its own in front of a server; yields a client that trusts it.

    Parameters
    ----------
    check : option with which the proxy reads its settings only
    """
    subprocess.run([*command, check], check=True)
    with (folder / "log").open("w") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: _connects(port))
        trust = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, timeout=30) as client:
            yield client
    finally:
        proxy.terminate()
        proxy.wait(30)


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "nginx", marks=pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")
        ),
        pytest.param(
            "haproxy", marks=pytest.mark.skipif(HAPROXY is None, reason="needs haproxy: apt-get install haproxy")
        ),
    ],
)
def test_a_proxy_in_front(tmp_path: Path, stub_llm: StubLLM, kind: str) -> None:
    """Requests and streams pass; slow heads, large bodies and upgrades end at the proxy; administration is hidden."""
    task = make_task(tmp_path, stub_llm)
    make_version(task)
    stub_llm.default = "blue"
    folder, port = tmp_path / kind, free_port()
    folder.mkdir()
    command, check = {"nginx": (_nginx, "-t"), "haproxy": (_haproxy, "-c")}[kind]
    with (
        listening(task) as url,
        in_front(folder, command(folder, httpx.URL(url).port or 0, port), check, port) as client,
    ):
        for text, decision in ((HANDLED, "handled"), (DEFERRED, "deferred")) * 20:  # on connections that are used again
            answer = client.post("/v1/classify", json={"input": text})
            assert answer.headers["x-tracer-decision"] == decision
        asked = {"model": "other", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        with client.stream("POST", "/v1/chat/completions", json=asked) as streamed:
            assert streamed.headers["x-tracer-decision"] == "forwarded"
            assert "data: [DONE]" in list(streamed.iter_lines())
        assert client.post("/v1/classify", content=b"x" * 4_300_000).status_code == 413
        assert [client.get(path).status_code for path in ("/metrics", "/admin/refit", "/t/a/metrics")] == [404] * 3
        assert client.get("/livez", headers={"connection": "upgrade", "upgrade": "foo"}).status_code == 200
        _smuggles_nothing(client)
        _is_closed_in_the_middle_of_a_head(client)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEADS = (
    b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\ncontent-length: %d\r\n\r\n0\r\n\r\n",
    b"content-length: 0\r\ncontent-length: %d\r\n\r\n",
    b"connection: upgrade\r\nupgrade: foo\r\ncontent-length: %d\r\n\r\n",
    b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\ncontent-length: %d\r\n\r\n",
)


def _smuggles_nothing(client: httpx.Client) -> None:
    """A request in another one's body is never answered as a request of the next client on the same connection."""
    for head in HEADS:
        with _raw(client) as stream:
            start = b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            stream.sendall(start + (head % len(SMUGGLED)) + SMUGGLED)
            stream.recv(4096)
        for _ in range(5):
            assert client.get("/livez").status_code == 200
            assert client.post("/v1/classify", json={"input": HANDLED}).headers["x-tracer-decision"] == "handled"


@contextmanager
def _raw(client: httpx.Client) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as raw, context.wrap_socket(raw) as stream:
        stream.settimeout(20)
        yield stream


def _is_closed_in_the_middle_of_a_head(client: httpx.Client) -> None:
    with _raw(client) as slow:
        slow.sendall(b"GET /livez HTT")
        assert slow.recv(4096)[:12] in (b"", b"HTTP/1.1 408")
