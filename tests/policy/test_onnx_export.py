"""A policy as ONNX: the same label, score and decision as this server, from the same vectors."""

import json
import shutil
import subprocess
from base64 import b64encode
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tasks import Planted, write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.errors import PluginError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.policy.onnx_export.export import export_policy
from tracer_serve.policy.policy import Policy

pytest.importorskip("onnx", reason="pip install '.[onnx]' in a checkout of tracer-serve")
pytest.importorskip("onnxruntime", reason="pip install '.[onnx]' in a checkout of tracer-serve")

BLEND: dict[str, Any] = {"type": "blend", "members": [{"type": "mlp", "hidden": 32}, "knn", "logreg"]}


class Cloud(Planted):
    """Vectors around a centre per class, with a share of noise; a text is its class and a number."""

    def __init__(self, classes: int = 5, dim: int = 16) -> None:
        super().__init__(classes)
        self.fingerprint, self.dim = "cloud", dim

    def embed(self, texts: Any) -> Any:
        out = np.zeros((len(texts), self.dim), np.float32)
        for i, text in enumerate(texts):
            label, number = (int(part) for part in str(text).split()[:2])
            out[i] = np.random.default_rng(number).standard_normal(self.dim)
            out[i, label] += 2.5
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def rows_of(start: int, count: int) -> Rows:
    rng = np.random.default_rng(start)
    truth = rng.integers(0, 5, count)
    texts = [f"{label} {start + i:07} {'abcde'[label] * 3}" for i, label in enumerate(truth.tolist())]
    noisy = np.where(rng.random(count) < 0.05, rng.integers(0, 5, count), truth)
    return Rows.of(texts, [f"label{label}" for label in noisy.tolist()])


def fitted(folder: Path, surrogate: Any, acceptor: str = "logistic", rows: int = 600, **gate: Any) -> Policy:
    task = write_task(folder, surrogates=[surrogate], acceptors=[acceptor], gate={"alpha": 0.9, "delta": 0.1} | gate)
    policy = fit_policy(task, rows_of(0, rows), Cloud()).policy
    assert policy.certificate.certified
    return policy


def run(file: Path, given: dict[str, Any]) -> tuple[Any, ...]:
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return tuple(session.run(["label", "score", "handled"], given))


def inputs_of(policy: Policy, texts: Any) -> dict[str, Any]:
    given = {"vectors": policy.view.embed(texts)}
    if np.isfinite(policy.stages[0].scope_threshold):
        given["rarity"] = policy.inputs.of(texts).astype(np.float32)
    return given


def clear_rows(policy: Policy, vectors: Any) -> Any:
    """Return the rows whose nearest rows are in no order that rounding decides."""
    wide = copy(policy.view.index)
    wide.k += 1
    similarity = wide.query(vectors).similarity
    return (np.diff(similarity) < -1e-6).all(axis=1)


def same(policy: Policy, file: Path, rows: int = 2_000) -> None:
    """Check labels, scores and decisions on new rows, a tenth of them unlike all others."""
    texts = rows_of(1_000_000, rows).texts
    texts = [text if i % 10 else f"{text} {i * 'ж'}"[:40] for i, text in enumerate(texts)]
    given, expected = inputs_of(policy, texts), policy.score(texts)
    label, score, handled = run(file, given)
    short, clear = ~policy.too_long(texts)[0], clear_rows(policy, given["vectors"])
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(label[clear], expected.top[clear])
    np.testing.assert_allclose(score[clear], expected.score[clear], atol=1e-5)
    np.testing.assert_array_equal((handled & short)[clear], expected.handled[clear])
    assert 0.2 < expected.handled.mean() < 1


@pytest.mark.parametrize(
    ("surrogate", "acceptor"),
    [
        ("logreg", "top1"),
        ("sgd", "margin"),
        ({"type": "mlp", "hidden": 32}, "logistic"),
        ("knn", "logistic"),
        (BLEND, "logistic"),
    ],
    ids=["logreg", "sgd", "mlp", "knn", "blend"],
)
def test_it_decides_as_the_policy_does(tmp_path: Path, surrogate: Any, acceptor: str) -> None:
    """Labels and decisions are equal on 2,000 new rows, scores to 1e-5, with the scope guard."""
    policy = fitted(tmp_path, surrogate, acceptor)
    assert export_policy(policy, tmp_path / "policy.onnx", {}) == ("vectors", "rarity")
    same(policy, tmp_path / "policy.onnx")


def test_it_looks_into_the_same_cells(tmp_path: Path) -> None:
    """Above 2,048 rows the search is approximate, and the graph finds the rows that the index finds."""
    policy = fitted(tmp_path, "knn", rows=2_600)
    assert policy.view.index.probes < len(policy.view.index.centres)
    export_policy(policy, tmp_path / "policy.onnx", {})
    same(policy, tmp_path / "policy.onnx")


def test_class_thresholds_and_protected_labels_are_kept(tmp_path: Path) -> None:
    """A threshold per class, the class floor, and the veto of a protected label decide in the graph too."""
    policy = fitted(tmp_path, "logreg", "top1", rows=1_500, alpha=0.8, class_floor=0.6, protect={"label3": 0.8})
    export_policy(policy, tmp_path / "policy.onnx", {})
    same(policy, tmp_path / "policy.onnx")


def test_without_a_scope_guard_vectors_are_all_it_needs(tmp_path: Path) -> None:
    """The graph then has one input, and no training row inside unless the acceptor or a knn asks for them."""
    policy = fitted(tmp_path, "logreg", "top1", scope={"keep": 1.0})
    assert export_policy(policy, tmp_path / "policy.onnx", {}) == ("vectors",)
    same(policy, tmp_path / "policy.onnx")
    assert (tmp_path / "policy.onnx").stat().st_size < policy.view.index.vectors.nbytes


def test_the_certificate_is_in_the_metadata(tmp_path: Path) -> None:
    """A runtime can read what is promised, the labels, and the threshold, without this package."""
    import onnxruntime  # noqa: PLC0415

    policy = fitted(tmp_path, "logreg", "top1")
    export_policy(policy, tmp_path / "policy.onnx", {"task": "t", "version": 3})
    facts = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx")).get_modelmeta().custom_metadata_map
    assert (facts["task"], json.loads(facts["version"])) == ("t", 3)
    assert json.loads(facts["labels"]) == policy.classes.tolist()
    assert json.loads(facts["threshold"]) == policy.certificate.threshold
    found = json.loads(facts["certificate"])
    assert (found["alpha"], found["certified"]) == (0.9, True)


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    """A member that reads texts, and a version without a certificate: the error says which, and what to do."""
    with pytest.raises(PluginError, match=r"surrogate blend, member ngram_svc cannot be exported: .* fit again"):
        export_policy(fitted(tmp_path, "blend"), tmp_path / "policy.onnx", {})
    policy = fit_policy(write_task(tmp_path, gate={"alpha": 0.999, "delta": 0.01}), rows_of(0, 100), Cloud()).policy
    with pytest.raises(PluginError, match="no certificate"):
        export_policy(policy, tmp_path / "policy.onnx", {})
    assert not (tmp_path / "policy.onnx").exists()


def test_a_task_of_vectors_has_no_text_to_judge(tmp_path: Path) -> None:
    """With `precomputed`, JSON and base64 of a vector get one decision, and the graph needs vectors alone."""
    rows = rows_of(0, 600)
    vectors = Cloud().embed(rows.texts)
    texts = [json.dumps(vector.tolist()) for vector in vectors]
    task = write_task(tmp_path, embedder={"type": "precomputed", "dim": 16}, gate={"alpha": 0.9, "delta": 0.1})
    policy = fit_policy(task, Rows.of(texts, rows.labels), make_embedder(task, tmp_path / "cache")).policy
    packed = [b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
    np.testing.assert_array_equal(policy.score(packed).reason, policy.score(texts).reason)
    assert policy.score(packed).handled.mean() > 0.5
    assert export_policy(policy, tmp_path / "policy.onnx", {}) == ("vectors",)
    _, _, handled = run(tmp_path / "policy.onnx", {"vectors": vectors})
    np.testing.assert_array_equal(handled, policy.score(texts).handled)


NODE = """
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create("policy.onnx");
const floats = (file) => {
  const b = readFileSync(file);
  return new Float32Array(b.buffer, b.byteOffset, b.length / 4);
};
const rarity = floats("rarity.f32"), vectors = floats("vectors.f32"), n = rarity.length;
const tensor = (data, shape) => new ort.Tensor("float32", data, shape);
const given = { vectors: tensor(vectors, [n, vectors.length / n]), rarity: tensor(rarity, [n]) };
const began = performance.now();
const { label, score, handled } = await session.run(given);
writeFileSync("out.json", JSON.stringify({ ms: (performance.now() - began) / n, label: Array.from(label.data, Number),
  score: Array.from(score.data), handled: Array.from(handled.data, Boolean) }));
"""


@pytest.mark.slow
def test_a_browser_s_runtime_decides_alike(tmp_path: Path) -> None:
    """onnxruntime-web in Node gives the labels, scores to 1e-5 and decisions of onnxruntime in Python on 2,000 rows."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed")
    policy = fitted(tmp_path, BLEND, rows=2_600)
    export_policy(policy, tmp_path / "policy.onnx", {})
    given = inputs_of(policy, rows_of(1_000_000, 2_000).texts)
    for name, array in given.items():
        (tmp_path / f"{name}.f32").write_bytes(array.tobytes())
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "run.js").write_text(NODE, encoding="utf-8")
    wanted = [npm, "install", "--no-audit", "--no-fund", "onnxruntime-web@1.30.0"]
    installed = subprocess.run(wanted, cwd=tmp_path, capture_output=True, check=False)
    if installed.returncode:
        pytest.skip(f"onnxruntime-web cannot be installed: {installed.stderr.decode()[-200:]}")
    subprocess.run([node, "run.js"], cwd=tmp_path, check=True)
    out = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    label, score, handled = run(tmp_path / "policy.onnx", given)
    clear = clear_rows(policy, given["vectors"])
    np.testing.assert_array_equal(np.array(out["label"])[clear], label[clear])
    np.testing.assert_allclose(np.array(out["score"])[clear], score[clear], atol=1e-5)
    np.testing.assert_array_equal(np.array(out["handled"])[clear], handled[clear])
    assert 0.2 < handled.mean() < 1
