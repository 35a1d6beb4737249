"""A bento in an environment of its own: no checkout, no torch, only what it pins."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import answering, bare, classify, free_port, make_venv
from tests.support.tasks import CONFIGS

TRACER_SERVE = [sys.executable, "-m", "tracer_serve"]
FIELDS = ("label", "decision", "reason", "version")


def texts() -> list[str]:
    """Every shipped banking text."""
    files = (CONFIGS / "banking.traces.jsonl", CONFIGS / "banking.more.jsonl")
    return [json.loads(line)["input"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_bento_decides_as_the_task_does(tmp_path: Path) -> None:
    """Built here, served by `bentoml serve TAG` elsewhere: the same decision on every shipped text, state outside."""
    task = tmp_path / "tasks" / "banking.yaml"
    shutil.copytree(CONFIGS, task.parent)
    state = tmp_path / "state"
    here = os.environ | {"TRACER_SERVE_STATE": str(state), "BENTOML_HOME": str(tmp_path / "bentos")}
    for words in (["fit", str(task)], ["build", str(task), "--tag", "banking:v1"]):
        subprocess.run([*TRACER_SERVE, *words], cwd=tmp_path, env=here, check=True)

    bento = tmp_path / "bentos" / "bentos" / "banking" / "v1"
    commands = make_venv(tmp_path / "venv")
    there = bare(tmp_path / "home", BENTOML_HOME=str(tmp_path / "bentos"))
    requirements = bento / "env" / "python" / "requirements.txt"
    install = [str(commands / "pip"), "install", "-q", "-r", str(requirements)]
    subprocess.run(install, cwd=bento / "src", env=there, check=True)
    look = "import importlib.util as u, tracer_serve; print(u.find_spec('torch'), tracer_serve.__file__)"
    seen = subprocess.check_output([str(commands / "python"), "-c", look], cwd=tmp_path, env=there, text=True)
    assert seen.startswith(f"None {tmp_path / 'venv'}")
    before = sorted(bento.rglob("*.*"))

    asked, port = texts(), free_port()
    with answering([*TRACER_SERVE, str(task), "--port", str(port)], port, tmp_path, here) as client:
        expected = classify(client, asked)
    port = free_port()
    serve = [str(commands / "bentoml"), "serve", "banking:v1", "--host", "127.0.0.1", "--port", str(port)]
    with answering(serve, port, tmp_path, there) as client:
        found = classify(client, asked)
        _came_from(client, 1)
    assert [[row[f] for f in FIELDS] for row in found] == [[row[f] for f in FIELDS] for row in expected]
    assert sum(row["decision"] == "handled" for row in found) > len(found) / 2
    assert (tmp_path / "home" / ".tracer" / "banking" / "traces.db").is_file()
    assert sorted(f for f in bento.rglob("*.*") if "__pycache__" not in f.parts) == before

    # another spec by the environment, in a state of its own
    other = task.with_name("observed.yaml")
    other.write_text(task.read_text(encoding="utf-8") + "mode: observe\n", encoding="utf-8")
    moved = there | {"TRACER_SERVE_TASK": str(other), "TRACER_SERVE_STATE": str(tmp_path / "moved")}
    port = free_port()
    with answering([*serve[:-1], str(port)], port, tmp_path, moved) as client:
        assert client.get("/healthz").json()["mode"] == "observe"
        _came_from(client, 1)
        assert {row["reason"] for row in classify(client, asked[:20])} >= {"observe"}
    assert (tmp_path / "moved" / "banking" / "versions" / "current").read_text().strip() == "1"


def _came_from(client: httpx.Client, version: int) -> None:
    assert client.get("/healthz").json()["version"]["number"] == version
