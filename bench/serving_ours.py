"""The arms of tracer-serve in `bench.serving`: tasks, versions, and the texts that these handle."""

import base64
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.data import Dataset, Given, Part
from bench.servers import Server
from bench.serving_row import Measured, asked
from tracer_serve.components.factory import make_embedder, make_embedders, teacher_fingerprint
from tracer_serve.config.load import Task, load_task
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.certificate import CERTIFICATE
from tracer_serve.policy.policy import Policy
from tracer_serve.protocols import Embedder
from tracer_serve.storage.versions.manifest import Manifest
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.types import Vectors

FOLDER = Path(__file__).resolve().parent.parent / ".bench" / "serving"
ADMIN = "only-for-the-benchmark-0123456789"
_ONNX = {"type": "sentence_transformers", "model": "sentence-transformers/all-MiniLM-L6-v2", "backend": "onnx"}
_VECTORS = {"type": "precomputed", "dim": 384}
FIRST = "tracer-serve, n-grams first"
CACHED = "tracer-serve, ngrams, remembered"
PACKED = "tracer-serve, vectors, in base64"
OURS: dict[str, dict[str, Any]] = {
    "tracer-serve, vectors": {"embedder": _VECTORS, "surrogates": [{"type": "blend", "members": ["mlp", "knn"]}]},
    PACKED: {"embedder": _VECTORS, "surrogates": [{"type": "blend", "members": ["mlp", "knn"]}]},
    "tracer-serve, vectors, logreg": {"embedder": _VECTORS, "surrogates": ["logreg"]},
    "tracer-serve, onnx": {"embedder": _ONNX},
    FIRST: {
        "embedder": _ONNX,
        "surrogates": [{"type": "blend", "embedder": "ngrams"}, "blend"],
        "gate": {"families": ["l2d", "cascade"]},
    },
    "tracer-serve, ngrams": {"embedder": "ngrams"},
    CACHED: {"embedder": "ngrams"},
}
"""What we serve, by name, as it differs from the default spec."""


def task_of(system: str, data: Dataset, port: int, traces: Path | None = None) -> Path:
    """Write the YAML of one of ours, fit its version if there is none, and return the YAML's path.

    Parameters
    ----------
    traces : file to import before serving
    """
    same = system.removesuffix(", remembered").removesuffix(", in base64")  # as the version of another task
    name = same.removeprefix("tracer-serve, ").replace(",", "").replace(" ", "-")
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    spec = OURS[system] | {
        "name": name,
        "teacher": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "never-asked"},
        "labels": sorted(set(data.train.labels.tolist())),
        "traces": {"audit_rate": 0.0} | ({} if traces is None else {"import": [str(traces)]}),
        "fit": {"folds": 2},
        "state": str(folder / "state"),
        "server": {"port": port, "max_batch": 10_000, "decision_cache": 10_000 if system == CACHED else 0},
    }
    file = folder / f"{port}.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    task = load_task(file)
    if open_versions(task).current() is None:
        write_version(task, data, inputs_of(system, data.train.texts, data.train.vectors))
    return file


class _Embedded(Given):
    """Embedder that looks up the vectors of known texts; they are the same with either backend."""

    def __init__(self, embedder: Embedder, part: Part) -> None:
        super().__init__(part, uncached=embedder)
        self.fingerprint = embedder.fingerprint


def write_version(task: Task, data: Dataset, inputs: Sequence[str]) -> None:
    """Fit and activate a version, without the report."""
    embedder = make_embedder(task)
    if not embedder.trainable:
        embedder = _Embedded(embedder, Part(inputs, data.train.labels, data.train.vectors))
    policy = fit_policy(task, Rows.of(inputs, data.train.labels), embedder).policy
    if not policy.certificate.certified:
        raise SystemExit(f"{task.spec.name} was not certified: {policy.certificate.reason}")

    def fill(folder: Path) -> None:
        policy.save(folder / "model")
        (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(policy.certificate))
        (folder / "report.html").write_text("<!doctype html><title>none</title>", encoding="utf-8")

    def describe(number: int, files: dict[str, str]) -> Manifest:
        return Manifest(
            version=number,
            created=datetime.now(UTC).isoformat(),
            task=task.spec.name,
            certified=True,
            reason="certified",
            parent=None,
            traces=len(inputs),
            last_trace="",
            embedder=policy.fingerprint,
            teacher=teacher_fingerprint(task),
            plugins={},
            software={},
            files=files,
            labels=tuple(map(str, policy.classes)),
        )

    versions = open_versions(task)
    versions.activate(versions.write(fill, describe))


def inputs_of(system: str, texts: Sequence[Any], vectors: Vectors) -> list[str]:
    """Return what a client of the system sends: the texts, or their vectors as JSON or in base64."""
    if "vectors" not in system:
        return [str(text) for text in texts]
    if system == PACKED:
        return [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
    return ["[" + ",".join(f"{x:.7g}" for x in vector.tolist()) + "]" for vector in vectors]


def handled(file: Path, given: Sequence[str]) -> list[str]:
    """Return the inputs that the current version handles."""
    task = load_task(file)
    versions = open_versions(task)
    number = versions.current()
    assert number is not None  # just fitted
    policy = Policy.load(versions.folder(number) / "model", *make_embedders(task))
    return [text for text, said in zip(given, policy.decide(list(given)), strict=True) if said.handled]


def ours(system: str, data: Dataset, port: int, traces: Path | None = None) -> Measured:
    """Serve one of ours."""
    file = task_of(system, data, port, traces)
    bodies = [json.dumps({"input": text}) for text in handled_texts(system, data, file)]
    return asked(system, serve(file, port), "/v1/classify", bodies)


def handled_texts(system: str, data: Dataset, file: Path) -> list[str]:
    """Return what a client of one of ours sends, in any order: the test inputs that its version handles."""
    # an encoder takes a minute for them
    kept = file.with_name("handled_in_base64.json" if system == PACKED else "handled.json")
    if not kept.exists():
        kept.write_text(json.dumps(handled(file, inputs_of(system, data.test.texts, data.test.vectors))))
    texts = json.loads(kept.read_text())  # the data is sorted by label, unlike traffic
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


def serve(file: Path, port: int) -> Server:
    """Start the server of a task."""
    return Server.start([*_cli(), "serve", str(file)], port, "/readyz", {"TRACER_SERVE_ADMIN_KEY": ADMIN})


def _cli() -> list[str]:
    return [sys.executable, "-m", "tracer_serve"]
