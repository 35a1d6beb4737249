"""Latency that a proxy adds to the answers of a stub LLM.

``python -m bench.proxy`` asks the stub directly; through tracer-serve (a foreign call, which is passed on; a call of
the task without a version, which is deferred: asked with the task's own prompt and stored before it is answered),
through ``tracer-serve proxy``, which observes every call, and through LiteLLM's proxy. Neither teacher nor embedding
time is in it: the stub answers at once, and nothing is embedded.
The systems take turns within each round, in an order of chance; what is added is the difference within a round. Four
rounds take a minute and a half; ``--minutes 60`` runs for an hour. Every load prints a line when it is done.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import yaml

from bench.load import Load, Met, put
from bench.peer import ROOT, environment

LITELLM = "litellm[proxy]==1.106.2"
CLIENTS = (1, 16)
_TEXTS = 4000
_PATH = "/v1/chat/completions"
_MODEL, _TASK, _LABELS = "stub-1", "proxied", ("yes", "no")
_OPEN = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # neither proxy requires a key
_QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class System:
    """System under measurement: its address, and the model to ask for."""

    name: str
    port: int
    model: str = _MODEL


@dataclass(frozen=True, slots=True)
class Row:
    """One system at one number of clients; medians over the rounds.

    Parameters
    ----------
    added_p50_ms, added_p99_ms : latency beyond the stub alone, in the same round
    spread_p50_ms, spread_p99_ms : from the least to the most that was added in a round
    """

    system: str
    clients: int
    runs: int
    rps: float
    p50_ms: float
    p99_ms: float
    added_p50_ms: float
    added_p99_ms: float
    spread_p50_ms: float
    spread_p99_ms: float
    errors: int


@contextmanager
def systems(wanted: Sequence[str], folder: Path) -> Iterator[list[System]]:
    """Start the stub and what is wanted in front of it, each in processes of its own."""
    with ExitStack() as stack:
        stub = free_port()
        labels = folder / "labels.jsonl"
        labels.write_text(json.dumps({"input": "a text that no client sends", "teacher": _LABELS[0]}) + "\n")
        options = ["--labels", str(labels), "--default", _LABELS[1], "--port", str(stub)]
        stack.enter_context(running([sys.executable, "-m", "tests.support.stub_llm", *options], stub, "/v1/models"))
        made = [System("stub", stub)]
        if "tracer-serve" in wanted:
            port = free_port()
            task = _task(folder, stub, port)
            stack.enter_context(running([sys.executable, "-m", "tracer_serve", str(task)], port, "/readyz"))
            made += [System("tracer-serve, passed on", port), System("tracer-serve, deferred", port, _TASK)]
        if "observe" in wanted:
            port = free_port()
            words = [sys.executable, "-m", "tracer_serve", "proxy", "--upstream", f"http://127.0.0.1:{stub}/v1"]
            words += ["--port", str(port), "--state", str(folder / "proxy")]
            stack.enter_context(running(words, port, "/readyz"))
            made.append(System("tracer-serve proxy", port))
        if "litellm" in wanted:
            port = free_port()
            python = environment("litellm", LITELLM)
            words = [str(python.parent / "litellm"), "--config", str(_litellm(folder, stub))]
            words += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
            stack.enter_context(running(words, port, "/health/liveliness"))
            made.append(System("litellm", port))
        yield made


@contextmanager
def running(command: list[str], port: int, path: str) -> Iterator[None]:
    """Run a server until the block ends; it answers when this yields."""
    log = tempfile.TemporaryFile()  # noqa: SIM115  # closed below
    process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | _QUIET | _OPEN, cwd=ROOT.parent)
    try:
        for _ in range(1200):
            try:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        else:
            process.kill()
        if process.poll() is not None:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} did not start:\n{log.read().decode(errors='replace')[-2000:]}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _task(folder: Path, stub: int, port: int) -> Path:
    teacher = {"type": "openai", "base_url": f"http://127.0.0.1:{stub}/v1", "model": _MODEL, "cache": {"size": 0}}
    spec = {"name": _TASK, "labels": list(_LABELS), "teacher": teacher, "state": str(folder / "state")}
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(spec | {"server": {"port": port}}), encoding="utf-8")
    return file


def _litellm(folder: Path, stub: int) -> Path:
    upstream = {"model": f"openai/{_MODEL}", "api_base": f"http://127.0.0.1:{stub}/v1", "api_key": "none"}
    file = folder / "litellm.yaml"
    file.write_text(yaml.safe_dump({"model_list": [{"model_name": _MODEL, "litellm_params": upstream}]}))
    return file


def measure(made: Sequence[System], rounds: int, seconds: float, seed: int, minutes: float = 0.0) -> list[Row]:
    """Let the systems take turns, and return what each added to the first, which is the stub.

    Parameters
    ----------
    rounds, minutes : minimum number of rounds, and minimum duration
    """
    chance, met = random.Random(seed), dict[tuple[str, int], list[Met]]()
    for system in made:
        _wake(system)
    number, until = 0, time.monotonic() + 60 * minutes
    while number < rounds or time.monotonic() < until:
        number += 1
        for clients in CLIENTS:
            for system in chance.sample(list(made), len(made)):
                load = Load(system.port, _PATH, _bodies(system.model), clients, seconds)
                met.setdefault((system.name, clients), []).append(found := put(load))
                _say(f"round {number}, {clients:>2} clients  {system.name:<26} p50 {found.p50_ms:.2f} ms")
    return [_row(system.name, clients, met) for clients in CLIENTS for system in made]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _wake(system: System) -> None:
    """Send a few requests, because some systems initialise on their first request."""
    with httpx.Client(base_url=f"http://127.0.0.1:{system.port}", timeout=120) as client:
        for body in _bodies(system.model)[:20]:
            client.post(_PATH, content=body, headers={"content-type": "application/json"}).raise_for_status()


def _bodies(model: str) -> list[str]:
    """Return bodies of which no two ask about the same text."""
    return [
        json.dumps({"model": model, "messages": [{"role": "user", "content": f"question {i} of many: is it so?"}]})
        for i in range(_TEXTS)
    ]


def _row(name: str, clients: int, met: dict[tuple[str, int], list[Met]]) -> Row:
    own, alone = met[name, clients], met["stub", clients]
    p50 = [a.p50_ms - b.p50_ms for a, b in zip(own, alone, strict=True)]
    p99 = [a.p99_ms - b.p99_ms for a, b in zip(own, alone, strict=True)]
    middle = statistics.median
    return Row(
        system=name,
        clients=clients,
        runs=len(own),
        rps=round(middle(one.rps for one in own), 1),
        p50_ms=round(middle(one.p50_ms for one in own), 3),
        p99_ms=round(middle(one.p99_ms for one in own), 3),
        added_p50_ms=round(middle(p50), 3),
        added_p99_ms=round(middle(p99), 3),
        spread_p50_ms=round(max(p50) - min(p50), 3),
        spread_p99_ms=round(max(p99) - min(p99), 3),
        errors=sum(one.errors for one in own),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", default="tracer-serve,observe,litellm", help="of these, in front of the stub")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=0.0, help="minimum duration; 60 for an hour of traffic")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load, after half a one to warm up")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which they take turns")
    parser.add_argument("--json", action="store_true", help="print rows as JSON, and nothing else")
    options = parser.parse_args(arguments)
    wanted = options.systems.split(",")
    if "litellm" in wanted:
        _say(f"making an environment with {LITELLM}, once")
        environment("litellm", LITELLM)
    _say(f"starting the stub, {', '.join(wanted)}")
    with tempfile.TemporaryDirectory(prefix="proxy-") as name, systems(wanted, Path(name)) as made:
        rows = measure(made, options.rounds, options.seconds, options.seed, options.minutes)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(f"{'system':<26}{'clients':>8}{'added p50':>12}{'added p99':>12}{'p50 ms':>10}{'p99 ms':>10}{'rps':>9}")
    for row in rows:
        added = f"{row.added_p50_ms:>12.2f}{row.added_p99_ms:>12.2f}"
        failed = f"  {row.errors} errors" if row.errors else ""
        print(f"{row.system:<26}{row.clients:>8}{added}{row.p50_ms:>10.2f}{row.p99_ms:>10.2f}{row.rps:>9.0f}{failed}")


if __name__ == "__main__":
    main()
