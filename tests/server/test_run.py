"""The real thing: workers, signals, ports."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.server.worlds import DEFERRED, HANDLED, make_task, make_version
from tests.support.server_process import free_port, workers_at
from tests.support.stub_llm import StubLLM
from tests.support.waiting import until
from tracer_serve.config.load import Task
from tracer_serve.config.server import ServerSpec
from tracer_serve.errors import BusyError, SpecError, StoreError
from tracer_serve.server.process.address import address_of, bind
from tracer_serve.server.process.handshake import WorkerHandle, announced
from tracer_serve.server.process.worker import application_of, started
from tracer_serve.storage.traces import open_store

MakeTask = Callable[..., Task]
PATIENCE_S = 90.0  # a machine under load imports slowly


@contextmanager
def process(task: Task, *others: Task) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve a task, or several, in processes of their own, ready when this yields."""
    words = [sys.executable, "-m", "tracer_serve", *(str(each.file) for each in (task, *others))]
    server = subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{task.spec.server.port}/readyz").raise_for_status()
                break
            except httpx.HTTPError:
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_two_workers_count_together_and_stop_politely(task: MakeTask, stub_llm: StubLLM) -> None:
    """Any worker tells the metrics of all; SIGTERM lets a request in flight end, keeps its trace, and exits with 0."""
    spec = task(server={"port": free_port(), "workers": 2})
    make_version(spec)
    url = f"http://127.0.0.1:{spec.spec.server.port}"
    with process(spec) as server:
        for _ in range(40):  # a new connection each, so that both workers get some
            assert httpx.post(f"{url}/v1/classify", json={"input": HANDLED}).json()["data"][0]["decision"] == "handled"
        handled = 'tracer_requests_total{decision="handled",task="colours"} 40.0'
        _every_worker_says(handled, f"{url}/metrics")
        assert len(workers_at(spec.spec.server.port)) >= 2
        answer = asyncio.run(_ask_and_stop(url, server, stub_llm))
        assert server.wait(30) == 0
    assert answer.json()["data"][0]["label"] == "blue"
    store = open_store(spec.state / "traces.db", "colours")
    counts = store.tallies.counts().total
    store.close()
    assert (counts.handled, counts.deferred) == (40, 1)


def _every_worker_says(words: str, url: str) -> None:
    """Ask until whoever answers says so; a worker's counts are there for the other one half a second later."""
    until = time.monotonic() + 20
    while not all(words in httpx.get(url).text for _ in range(6)):
        assert time.monotonic() < until
        time.sleep(0.1)


async def _ask_and_stop(url: str, server: "subprocess.Popen[bytes]", stub: StubLLM) -> httpx.Response:
    """Send SIGTERM while the teacher is thinking."""
    stub.hold()
    async with httpx.AsyncClient(timeout=30) as client:
        asking = asyncio.create_task(client.post(f"{url}/v1/classify", json={"input": DEFERRED}))
        while not stub.in_flight:  # noqa: ASYNC110  # counted in another thread
            await asyncio.sleep(0.02)
        server.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert not asking.done()
        stub.release.set()
        return await asking


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers_are_replaced(task: MakeTask, workers: int) -> None:
    """After kill -9 of every worker a request waits for a new one, as many run as before, and SIGTERM stops them."""
    spec = task(server={"port": free_port(), "workers": workers})
    make_version(spec)
    url = f"http://127.0.0.1:{spec.spec.server.port}"
    with process(spec) as server:
        until(lambda: len(workers_at(spec.spec.server.port)) == workers)
        killed = workers_at(spec.spec.server.port)
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        answer = httpx.post(f"{url}/v1/classify", json={"input": HANDLED}, timeout=PATIENCE_S)
        assert answer.headers["x-tracer-decision"] == "handled"
        assert not killed & workers_at(spec.spec.server.port)
        until(lambda: len(workers_at(spec.spec.server.port)) == workers)  # an unready one waits first
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def test_a_worker_that_is_not_wanted_ends(task: MakeTask) -> None:
    """One that was started ahead of a start that fails is gone when the error is told, and has left nothing."""
    spec = task()
    with announced([spec.file]), WorkerHandle() as worker:
        assert worker.process.poll() is None
    assert worker.process.poll() is not None
    assert not spec.state.exists()


def test_a_worker_that_dies_at_its_start_is_told_as_that(task: MakeTask) -> None:
    """One that ends without having read what it was asked leaves an error that says so, and its exit code."""
    spec = task()
    with announced([spec.file]), WorkerHandle("this") as worker:
        worker.prepare()
        with pytest.raises(RuntimeError, match="ended early, with 0"):
            worker.wait_report()


@pytest.mark.parametrize("module", ["tracer_serve.server.process.worker", "tracer_serve.server.bento.service"])
def test_a_worker_that_cannot_read_its_task_says_why(tmp_path: Path, module: str) -> None:
    """One line without the calls that led to it, ours and under `bentoml serve`."""
    env = os.environ | {"TRACER_SERVE_TASK": str(tmp_path / "gone.yaml")}
    done = subprocess.run([sys.executable, "-m", module, "0"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}/gone.yaml: no such file")
    assert len(done.stderr.splitlines()) == 1


def test_a_worker_that_cannot_start_says_why(task: MakeTask) -> None:
    """Where the store cannot be opened the log has one line for it, not forty."""
    spec = task()
    spec.state.mkdir(parents=True)
    (spec.state / "traces.db").mkdir()
    sent: list[dict[str, str]] = []

    async def start() -> None:
        async def receive() -> dict[str, str]:
            return {"type": "lifespan.startup"}

        async def send(message: dict[str, str]) -> None:
            sent.append(message)

        await application_of([spec])({"type": "lifespan", "app": None, "state": {}}, receive, started(send))

    with pytest.raises(StoreError):
        asyncio.run(start())
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert sent[0]["message"].startswith(f"error: {spec.state}/traces.db: ")
    assert "\n" not in sent[0]["message"]


def test_two_tasks_are_served_by_one_process_tree(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Each worker serves both, counts both together with the other worker, and stops politely."""
    made = []
    server = {"port": free_port(), "workers": 2}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made.append(make_task(tmp_path / name, stub_llm, name=name, server=server))
        make_version(made[-1])
    url = f"http://127.0.0.1:{server['port']}"
    with process(*made) as running:
        for i in range(20):  # a new connection each, so that both workers get some
            body = {"input": HANDLED, "model": made[i % 2].spec.name}
            assert httpx.post(f"{url}/v1/classify", json=body).headers["x-tracer-decision"] == "handled"
        for name in ("first", "second"):
            handled = f'tracer_requests_total{{decision="handled",task="{name}"}} 10.0'
            for path in ("", f"/t/{name}"):
                _every_worker_says(handled, f"{url}{path}/metrics")
        assert len(workers_at(server["port"])) >= 2
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0


def test_a_port_in_use_is_told_before_anything_starts() -> None:
    """The error names the port and the command that shows who has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=rf"port {port} on 127.0.0.1 is in use.*ss -ltnp") as caught:
            bind(ServerSpec(port=port))
    assert caught.value.exit_code == 1


def test_a_host_may_be_a_name() -> None:
    """`localhost` is bound as its address; a name of nothing is a spec error that names the field."""
    assert address_of("localhost") in ("127.0.0.1", "::1")
    with pytest.raises(SpecError, match=r"server\.host"):
        address_of("no.such.host.invalid")
