"""The proxy settings that we ship: read by the proxy itself, and true of this server."""

import re
import shutil
import signal
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

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
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


def _nginx(folder: Path, upstream: int, port: int) -> list[str]:
    """Return the command of an nginx that listens on a port of its own, with a certificate of its own."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *made]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
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


@contextmanager
def in_front(folder: Path, upstream: int) -> Iterator[httpx.Client]:
    """Run nginx with our settings in front of a server; yields a client that trusts its certificate."""
    port = free_port()
    command = _nginx(folder, upstream, port)
    subprocess.run([*command, "-t"], check=True)
    with (folder / "log").open("w") as log:
        proxy = subprocess.Popen(command, stderr=log)
    try:
        until(lambda: _connects(port))
        trust = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, timeout=30) as client:
            yield client
    finally:
        proxy.send_signal(signal.SIGQUIT)
        proxy.wait(30)


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")
def test_nginx_in_front(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Requests and streams pass; slow heads, large bodies and upgrades end at the proxy; administration is hidden."""
    task = make_task(tmp_path, stub_llm)
    make_version(task)
    stub_llm.default = "blue"
    folder = tmp_path / "nginx"
    folder.mkdir()
    with listening(task) as url, in_front(folder, httpx.URL(url).port or 0) as client:
        for text, kind in ((HANDLED, "handled"), (DEFERRED, "deferred")):
            answer = client.post("/v1/classify", json={"input": text})
            assert answer.headers["x-tracer-decision"] == kind
        asked = {"model": "other", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        with client.stream("POST", "/v1/chat/completions", json=asked) as streamed:
            assert streamed.headers["x-tracer-decision"] == "forwarded"
            assert "data: [DONE]" in list(streamed.iter_lines())
        assert client.post("/v1/classify", content=b"x" * 4_300_000).status_code == 413
        assert [client.get(path).status_code for path in ("/metrics", "/admin/refit", "/t/a/metrics")] == [404] * 3
        assert client.get("/livez", headers={"connection": "upgrade", "upgrade": "foo"}).status_code == 200
        _is_closed_in_the_middle_of_a_head(client)


def _is_closed_in_the_middle_of_a_head(client: httpx.Client) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", client.base_url.port or 0)
    with socket.create_connection(address) as raw, context.wrap_socket(raw) as slow:
        slow.settimeout(20)
        slow.sendall(b"GET /livez HTT")
        assert slow.recv(4096)[:12] in (b"", b"HTTP/1.1 408")
