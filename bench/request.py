"""CPU of the steps of one handled request: ``python -m bench.request``.

Every step of a request is run by itself, over and over, in this process: alone, and as a share of a batch of 16. What
is left of a whole request (`bench.serving`) is the HTTP server's, the event loop's and the changes of threads.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.table import Table

from bench.data import load
from bench.serving_ours import OURS, handled, inputs_of, task_of
from tracer_serve.cli.console import out
from tracer_serve.components.factory import make_embedders
from tracer_serve.config.load import load_task
from tracer_serve.gate.scope_guard import scope_scores
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.stage import gather
from tracer_serve.server.http.json_response import encode
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.serving.metrics import Metrics
from tracer_serve.storage.traces import new_id, open_store
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.types import Inputs, Trace

_BATCH, _FOR_S = 16, 0.25


def main(arguments: Sequence[str] | None = None) -> None:
    """Print microseconds per step."""
    parser = argparse.ArgumentParser(prog="python -m bench.request", description=main.__doc__)
    parser.add_argument("--system", choices=list(OURS), default=next(iter(OURS)), help="whose version")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    parser.add_argument("--task", type=Path, help="a fitted task instead: what its decisions take on the --texts")
    parser.add_argument("--texts", type=Path, help="JSONL with an `input` a line")
    options = parser.parse_args(arguments)
    if options.task:
        lines = options.texts.read_text(encoding="utf-8").splitlines()
        _show(_by_text(_policy_of(options.task), [json.loads(line)["input"] for line in lines]), as_json=options.json)
        return
    data = load("banking77")
    file = task_of(options.system, data, 3899)
    # in any order: the data is sorted by label, and texts of one label look for their neighbours in the same place
    test = data.test.take(np.random.default_rng(0).permutation(len(data.test))[:400])
    given = handled(file, inputs_of(options.system, test.texts, test.vectors))
    policy = _policy_of(file)
    _show([*_of_policy(policy, given), *_of_request(policy, given)], as_json=options.json)


def _policy_of(file: Path) -> Policy:
    task = load_task(file)
    return Policy.load(open_versions(task).folder(open_versions(task).current() or 0) / "model", *make_embedders(task))


def _show(rows: Sequence[tuple[str, float, float | None]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"step": step, "us": alone, "us_of_16": shared} for step, alone, shared in rows], indent=1))
        return
    table = Table("step", "us alone", f"us in a batch of {_BATCH}")
    for step, alone, shared in rows:
        table.add_row(step, f"{alone:.0f}", "" if shared is None else f"{shared:.0f}")
    out.print(table)


def _of_policy(policy: Policy, given: Sequence[str]) -> list[tuple[str, float, float | None]]:
    """Return the cost of the parts of a decision."""

    def both(step: str, make: Callable[[Inputs], Callable[[], object]]) -> tuple[str, float, float]:
        cost = []
        for rows in (1, _BATCH):
            texts = given[:rows]
            cost.append(_us(make(Inputs(texts, policy.view.embed(texts)))) / rows)
        return step, cost[0], cost[1]

    stage = policy.stages[-1]
    found = [
        both("embed", lambda batch: lambda: policy.view.embed(batch.texts)),
        both("nearest rows", lambda batch: lambda: policy.view.index.query(batch.embeddings)),
    ]
    for name, member in zip(_names(policy), getattr(stage.surrogate, "fitted_", [stage.surrogate]), strict=True):
        found.append(both(f"surrogate: {name}", partial(_asking, policy, member)))

    def accepting(batch: Inputs) -> Callable[[], object]:
        seen = gather(stage.surrogate, batch, policy.view.index.near(batch))
        acceptor = stage.acceptor
        assert acceptor is not None
        return lambda: acceptor.score(acceptor.features(seen))

    def guarding(batch: Inputs) -> Callable[[], object]:
        near = policy.view.index.near(batch)
        proba = gather(stage.surrogate, batch, near).proba
        return lambda: scope_scores(proba, near.similarity, policy.inputs.compare(batch.texts).rarity)

    found += [both("acceptor", accepting), both("scope guard", guarding)]

    def deciding(batch: Inputs) -> Callable[[], object]:
        return lambda: policy.score(batch.texts, {policy.view: batch.embeddings}).rows()

    found.append(both("the decision as a whole", deciding))
    return [*found, *_by_text(policy, given)]


def _by_text(policy: Policy, given: Sequence[str]) -> list[tuple[str, float, float]]:
    """Return CPU per text, in turns: a cascade's first stage saves the last one's embedder many texts."""
    steps: dict[str, Callable[[Sequence[str]], object]] = {
        "the last stage's embedder, over many texts": policy.view.embed,
        "embed and decide, over many texts": policy.decide,
    }
    found = {step: [0.0, 0.0] for step in steps}
    for place, size in enumerate((1, _BATCH)):
        for start in range(0, len(given), size):
            for step, call in steps.items():
                began = time.process_time()
                call(given[start : start + size])
                found[step][place] += time.process_time() - began
    return [(step, 1e6 * alone / len(given), 1e6 * shared / len(given)) for step, (alone, shared) in found.items()]


def _names(policy: Policy) -> list[str]:
    surrogate = policy.surrogate
    return [member.type for member in getattr(surrogate, "members", ())] or [policy.names[0]]


def _asking(policy: Policy, member: Any, batch: Inputs) -> Callable[[], object]:
    policy.view.index.near(batch)  # the search is shared, and counted by itself
    return lambda: member.predict_proba(batch)


def _of_request(policy: Policy, given: Sequence[str]) -> list[tuple[str, float, float | None]]:
    """Return the cost of the steps around a decision."""
    body = json.dumps({"input": given[0]}).encode()
    verdict = policy.decide(given[:1])[0]
    metrics = Metrics("request", lambda: None)
    answer = {"id": "classify-x", "data": [{"label": verdict.label, "score": verdict.score, "trace_id": new_id()}]}

    def trace() -> Trace:
        facts: dict[str, Any] = {"surrogate_label": verdict.label, "score": verdict.score, "decision": "handled"}
        return Trace(id=new_id(), ts=datetime.now(UTC), task="request", input=given[0], **facts)

    def count() -> None:
        for stage in ("embed", "predict", "total"):
            metrics.seconds[stage].observe(0.001)
        metrics.requests["handled"].inc()

    with TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "traces.db", "request")
        written = _us(lambda: store.traces.add([trace() for _ in range(100)])) / 100
        store.close()
    return [
        ("read the body", _us(lambda: ClassifyRequest.model_validate_json(body)), None),
        ("make the row and its id", _us(trace), None),
        ("count", _us(count), None),
        ("write the answer", _us(lambda: encode(answer)), None),
        ("the row to SQLite, in a thread, of 100", written, None),
        ("a turn of the event loop", _us_of_loop(), None),
    ]


def _us(call: Callable[[], object]) -> float:
    """Return the CPU of a call, microseconds: the least of five measurements."""
    call()
    best = np.inf
    for _ in range(5):
        calls, began = 0, time.process_time()
        while time.process_time() < began + _FOR_S / 5:
            for _ in range(10):
                call()
            calls += 10
        best = min(best, (time.process_time() - began) / calls)
    return 1e6 * float(best)


def _us_of_loop() -> float:
    async def turns(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            await asyncio.sleep(0)
        return 1e6 * (time.process_time() - began) / count

    import uvloop  # noqa: PLC0415  # as the server's

    return uvloop.run(turns(20_000))


if __name__ == "__main__":
    main()
