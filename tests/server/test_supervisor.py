"""The supervisor with workers that do next to nothing: real processes, short delays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import until

RUN = """
import socket, sys
from functools import partial
from tracer_serve.server.process.handshake import WorkerHandle
from tracer_serve.server.process.supervisor import Supervisor
listener = socket.create_server(("127.0.0.1", 0))
start = partial(WorkerHandle, sys.argv[1])
sys.exit(Supervisor(listener, int(sys.argv[2]), start, delay_s=0.05, spare_s=0.05, patience_s=0.5).run())
"""
WORKER = """
import os, pathlib, signal, sys, time
from tracer_serve.server.process.handshake import SupervisorLink
here = pathlib.Path(__file__).parent
from tracer_serve.infra.periodic import follow_parent
follow_parent(os.getppid())
link = SupervisorLink(int(sys.argv[1]))
(here / f"spare-{os.getpid()}").touch()
if link.listening() is None:
    sys.exit()
if (here / "fails").exists():
    sys.exit(7)
if (here / "ignores").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
link.report_ready()
(here / f"spare-{os.getpid()}").rename(here / f"ready-{os.getpid()}")
time.sleep(300)
"""


@contextmanager
def supervising(folder: Path, count: int) -> Iterator["subprocess.Popen[str]"]:
    """Run a supervisor of small workers, which say in files of the folder what they do."""
    (folder / "small_worker.py").write_text(WORKER, encoding="utf-8")
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ".")])
    env = os.environ | {"PYTHONPATH": paths, "TRACER_SERVE_METRICS": str(folder)}
    words = [sys.executable, "-c", RUN, "small_worker", str(count)]
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def named(folder: Path, kind: str) -> set[int]:
    """Return the workers of a kind that live."""
    found = {int(file.name.partition("-")[2]) for file in folder.glob(f"{kind}-*")}
    return {pid for pid in found if Path(f"/proc/{pid}").exists()}


def test_a_spare_takes_the_place_of_a_killed_worker(tmp_path: Path) -> None:
    """The process that had waited becomes the worker, and another one waits then; SIGTERM ends all, with 0."""
    with supervising(tmp_path, 2) as supervisor:
        until(lambda: len(named(tmp_path, "ready")) == 2 and len(named(tmp_path, "spare")) == 1)
        (spare,) = named(tmp_path, "spare")
        os.kill(min(named(tmp_path, "ready")), signal.SIGKILL)
        until(lambda: spare in named(tmp_path, "ready"))
        until(lambda: len(named(tmp_path, "ready")) == 2 and len(named(tmp_path, "spare")) == 1)
        (spare,) = named(tmp_path, "spare")
        os.kill(spare, signal.SIGKILL)
        until(lambda: named(tmp_path, "spare") - {spare})
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0
        until(lambda: not named(tmp_path, "ready") | named(tmp_path, "spare"))


def test_a_service_whose_workers_cannot_start_ends(tmp_path: Path) -> None:
    """Before any worker has been ready, the first failure ends the supervisor with 1, and says so."""
    (tmp_path / "fails").touch()
    with supervising(tmp_path, 1) as supervisor:
        assert supervisor.wait(60) == 1
        assert supervisor.stderr is not None
        assert "ended with exit code 7; the service cannot start" in supervisor.stderr.read()


def test_a_worker_that_cannot_start_again_is_retried(tmp_path: Path) -> None:
    """Once the service has been ready, failed starts are repeated until one succeeds."""
    with supervising(tmp_path, 1) as supervisor:
        until(lambda: named(tmp_path, "ready"))
        (first,) = named(tmp_path, "ready")
        (tmp_path / "fails").touch()
        os.kill(first, signal.SIGKILL)
        until(lambda: len(list(tmp_path.glob("spare-*"))) >= 3)
        (tmp_path / "fails").unlink()
        until(lambda: named(tmp_path, "ready"))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    """After the time to stop, which is half a second here, nothing is left."""
    (tmp_path / "ignores").touch()
    with supervising(tmp_path, 1) as supervisor:
        until(lambda: named(tmp_path, "ready"))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0
        assert not named(tmp_path, "ready")


def test_the_workers_of_a_killed_supervisor_end(tmp_path: Path) -> None:
    """kill -9 of the supervisor leaves no process behind that would hold the port."""
    with supervising(tmp_path, 2) as supervisor:
        until(lambda: len(named(tmp_path, "ready")) == 2 and len(named(tmp_path, "spare")) == 1)
        supervisor.kill()
        supervisor.wait()
        until(lambda: not named(tmp_path, "ready") | named(tmp_path, "spare"))
