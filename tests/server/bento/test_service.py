"""`bentoml serve` and BentoML's own client, with the service that a YAML makes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.server.test_run import process
from tests.server.worlds import HANDLED, make_version
from tests.support.server_process import answering, free_port, workers_at
from tests.support.waiting import until
from tracer_serve.config.load import Task

MakeTask = Callable[..., Task]
BENTOML = str(Path(sys.executable).parent / "bentoml")
CLIENT = """
import bentoml, json, sys
with bentoml.SyncHTTPClient(sys.argv[1]) as client:
    print(json.dumps(client.classify(input=sys.argv[2])))
"""
SCHEMAS = """
import json, sys
from tracer_serve.server.app import make_app
from tracer_serve.server.bento.mounted_service import make_service, tasks_or_exit
from tracer_serve.server.documents import bento_schema
tasks = tasks_or_exit(sys.argv[1])
print(json.dumps([make_service(tasks).schema(), bento_schema("colours", make_app(tasks[0]))]))
"""


@contextmanager
def bentoml_serving(task: Task, folder: Path, **settings: str) -> Iterator[httpx.Client]:
    """Serve a task with `bentoml serve`."""
    port = free_port()
    words = [BENTOML, "serve", "tracer_serve.server.bento.service:svc", "--arg", f"task={task.file}"]
    env = os.environ | {"BENTOML_HOME": str(folder / "bentoml"), "OMP_NUM_THREADS": "1"} | settings
    with answering([*words, "--host", "127.0.0.1", "--port", str(port)], port, folder, env) as client:
        yield client


def run(code: str, *words: str) -> Any:
    """Run code that imports BentoML, whose own warnings are not ours to fix; return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_bentoml_serve_answers_as_our_own_server_does(task: MakeTask, tmp_path: Path) -> None:
    """Same routes, schema and limits; BentoML's client finds `classify` on either; a worker that dies is replaced."""
    spec = task(server={"port": free_port()})
    make_version(spec)
    url = f"http://127.0.0.1:{spec.spec.server.port}"
    with process(spec) as ours:
        expected = run(CLIENT, url, HANDLED)
        schema = httpx.get(f"{url}/schema.json").json()
        ours.send_signal(signal.SIGTERM)
        assert ours.wait(30) == 0
    with bentoml_serving(spec, tmp_path, BENTOML_CONTAINERIZED="true") as client:
        answer = run(CLIENT, str(client.base_url), HANDLED)
        assert [row["label"] for row in answer["data"]] == [row["label"] for row in expected["data"]]
        assert answer["data"][0]["decision"] == "handled"
        assert client.get("/schema.json").json() == schema
        assert client.get("/livez").headers.get("server") is None
        _is_bounded(client)
        port = client.base_url.port or 0
        (killed,) = workers_at(port)
        os.kill(killed, signal.SIGKILL)
        until(lambda: workers_at(port) - {killed})
        assert client.post("/v1/classify", json={"input": HANDLED}).headers["x-tracer-decision"] == "handled"


def _is_bounded(client: httpx.Client) -> None:
    """Check that an endless head is refused, and that an upgrade is ignored: our protocol is in use."""
    address = ("127.0.0.1", client.base_url.port or 0)
    with socket.create_connection(address, timeout=60) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nx: " + b"y" * 70_000)
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
    with socket.create_connection(address, timeout=60) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nconnection: upgrade\r\nupgrade: foo\r\ncontent-length: 4\r\n\r\nGET ")
        raw.sendall(b"GET /nothing HTTP/1.1\r\n\r\n")
        stream = raw.makefile("rb")
        lines = [stream.readline() for _ in range(40)]
        assert [line[9:12] for line in lines if line.startswith(b"HTTP/1.1 ")] == [b"200", b"404"]


def test_the_schema_is_what_bentoml_says_of_the_service(task: MakeTask) -> None:
    """Name, route and fields of `classify` in our document are those that BentoML derives from the service."""
    theirs, ours = (schema["routes"][0] for schema in run(SCHEMAS, str(task().file)))
    for name in ("name", "route", "batchable", "is_task"):
        assert ours[name] == theirs[name]
    for name in ("input", "output"):
        assert set(ours[name]["properties"]) == set(theirs[name]["properties"])
        assert ours[name]["required"] == theirs[name]["required"]


def test_a_service_that_cannot_start_says_why_in_one_line(task: MakeTask, tmp_path: Path) -> None:
    """Where the store cannot be opened, BentoML's log has our line and no traceback."""
    spec = task()
    spec.state.mkdir(parents=True)
    (spec.state / "traces.db").mkdir()
    words = [BENTOML, "serve", "tracer_serve.server.bento.service:svc", "--arg", f"task={spec.file}"]
    log = tmp_path / "log"
    with log.open("w") as out:
        server = subprocess.Popen([*words, "--port", str(free_port())], stdout=out, stderr=out, start_new_session=True)
        try:
            until(lambda: f"error: {spec.state}/traces.db" in log.read_text())
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert "Traceback" not in log.read_text()
