"""Small real worlds: a task on disk with a teacher that answers, and versions that are certified or not."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from tests.support.stub_llm import StubLLM
from tracer_serve.components.factory import make_embedder, teacher_fingerprint
from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.registry import acceptors, surrogates
from tracer_serve.config.load import Task, load_task
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.score_scale import Scale
from tracer_serve.policy.stage import Stage
from tracer_serve.policy.view import View
from tracer_serve.protocols import Embedder
from tracer_serve.server.app import make_app
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.versions.manifest import NEAREST, Manifest
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.types import Inputs

RED = [
    f"a {thing} as red as {other}"
    for thing in ("rose", "brick", "cherry", "ruby")
    for other in ("blood", "fire", "wine")
]
BLUE = [
    f"the {thing} is blue like {other}" for thing in ("sky", "sea", "lake", "jay") for other in ("ice", "ink", "steel")
]
HANDLED = "a rose as red as wine"
DEFERRED = "zzyzx qwxyz"  # shares no n-gram with anything known


def unknown(seed: int) -> str:
    """Return another text that is deferred: two words of letters that no known text has."""
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("zqxv", k=12)) for _ in range(2))


LABELS = dict.fromkeys(RED, "red") | dict.fromkeys(BLUE, "blue") | {DEFERRED: "blue"}


def make_task(folder: Path, stub: StubLLM, **spec: Any) -> Task:
    """Write a task whose teacher is the stub; `spec` adds to it or overrides."""
    stub.labels = LABELS
    teacher = {"type": "openai", "base_url": stub.url, "model": "stub-1", "retries": 0, "deadline_s": 5.0}
    written = {
        "name": "colours",
        "labels": ["red", "blue"],
        "acceptors": ["margin"],
        "gate": {"alpha": 0.9},
        "teacher": teacher | {"cache": {"size": 0}},
        "traces": {"audit_rate": 0.0},
        "state": str(folder / "state"),
    }
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(written | spec), encoding="utf-8")
    return load_task(file)


def make_policy(task: Task, *, certified: bool = True, named: tuple[str, str] = ("red", "blue")) -> Policy:
    """Fit a small policy that handles what looks like the known texts; `named` are the labels of `RED` and `BLUE`."""
    texts = RED + BLUE
    labels = np.array([named[0]] * len(RED) + [named[1]] * len(BLUE))
    embedder = make_embedder(task).fit(texts)
    vectors = embedder.embed(texts)
    certificate = Certificate(
        certified=certified,
        reason="certified" if certified else "insufficient",
        alpha=0.9,
        delta=0.05,
        mode="strict",
        rows=100,
        n=80,
        agreements=80,
        lower_bound=0.96,
        threshold=0.8 if certified else float("inf"),
        coverage=0.8,
    )
    view = View(embedder, NeighbourIndex().fit(vectors, (labels == max(named)).astype(int)))
    surrogate = surrogates.build("logreg").fit(Inputs(texts, vectors), labels)
    names, guards = ("logreg", "margin"), (np.ones(2, bool), np.full(2, np.inf))
    stage = Stage(view, surrogate, acceptors.build("margin"), names, *guards, Scale.identity())
    return Policy((stage,), certificate)


def with_embedder(policy: Policy, embedder: Embedder) -> Policy:
    """Return the policy with another embedder in the place of its only one."""
    (stage,) = policy.stages
    return replace(policy, stages=(replace(stage, view=replace(stage.view, embedder=embedder)),))


def make_version(
    task: Task,
    *,
    certified: bool = True,
    activate: bool = True,
    after: str = "",
    ids: Sequence[str] = (),
    report: str = "<!doctype html><title>report</title>",
    data: str = "",
    named: tuple[str, str] = ("red", "blue"),
) -> int:
    """Write a version of that policy; `ids` are the traces that it was fitted on, `RED` and then `BLUE`.

    `report` is its page, `data` its report.json, none by default.
    """
    policy = make_policy(task, certified=certified, named=named)
    versions = open_versions(task)

    def fill(folder: Path) -> None:
        policy.save(folder / "model")
        if ids:
            np.save(folder / NEAREST, np.array([name.encode() for name in ids]))
        (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(policy.certificate))
        (folder / "report.html").write_text(report, encoding="utf-8")
        if data:
            (folder / "report.json").write_text(data, encoding="utf-8")

    def describe(number: int, files: dict[str, str]) -> Manifest:
        facts: dict[str, Any] = {"parent": None, "traces": len(LABELS), "last_trace": "", "plugins": {}}
        return Manifest(
            version=number,
            created="2026-11-01T00:00:00+00:00",
            task=task.spec.name,
            certified=certified,
            reason=policy.certificate.reason,
            embedder=policy.fingerprint,
            software={},
            teacher=teacher_fingerprint(task),
            files=files,
            after=after,
            **facts,
        )

    number = versions.write(fill, describe)
    if activate:
        versions.activate(number)
    return number


@asynccontextmanager
async def serving(task: Task, *, schedule: bool = False) -> AsyncIterator[tuple[httpx.AsyncClient, Runtime]]:
    """Serve a task in this process; yields a client and what is behind it."""
    app = make_app(task, schedule=schedule)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as client,
    ):
        yield client, app.state.runtime
