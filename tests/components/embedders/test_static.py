"""Token vectors distilled from a sentence encoder: a tiny one, whose vocabulary is the words of the tests."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.support.tasks import write_task, write_traces
from tracer_serve.components.contract import check_embedder
from tracer_serve.components.embedders._bag_regression import tune
from tracer_serve.components.embedders.static import Static
from tracer_serve.components.factory import make_embedder
from tracer_serve.components.persistence import save_component
from tracer_serve.errors import FitError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.fold_data import Folds
from tracer_serve.lifecycle.refit import refit
from tracer_serve.storage.traces import new_id
from tracer_serve.storage.versions import open_versions
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Text, Trace, Vectors

WORDS = ("card", "number", "lost", "rate", "exchange", "top", "up", "failed", "good", "bad")
TEXTS: list[Text] = [f"{a} {b} was {c}" for a in WORDS[:5] for b in WORDS[5:] for c in ("lost", "failed", "red")]
NEW: list[Text] = ["lost card failed", "exchange rate good", "top up was bad"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sentence encoder of random weights; exports and token tables go to a folder of this file's tests."""
    for package in ("onnx", "onnxruntime", "sentence_transformers", "tokenizers"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[minilm]' in a checkout of tracer-serve")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # slow to import: loads torch
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer  # noqa: PLC0415

    from tests.components.finetune.models import tiny_bert  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("encoder")
    words = Transformer(str(tiny_bert(folder / "bert")))
    model = SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension())], device="cpu")
    model.save(str(folder / "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACER_SERVE_STATE", str(folder / "state"))
        yield folder / "model"


@pytest.fixture(scope="module")
def fitted(encoder: Path) -> Static:
    return Static(folder=encoder).fit(TEXTS)


def cosine(one: Vectors, other: Vectors) -> float:
    return float((one * other).sum(axis=1).mean())


def test_it_keeps_the_contract(encoder: Path) -> None:
    """Vectors are finite float32, independent of their batch, repeatable, and survive the disk."""
    texts: list[Text] = ["card was lost", "number failed", "exchange rate", "top up", "good", "bad", "card was lost"]
    check_embedder(lambda: Static(folder=encoder), "static", texts, ["red sky", "not unseen", "a b c"])


def test_a_vector_does_not_depend_on_its_batch(fitted: Static) -> None:
    """Alone or among others, a text gets bit for bit the same vector: no score flips at the threshold."""
    together = fitted.embed(TEXTS)
    for i in (0, 17, 60):
        np.testing.assert_array_equal(fitted.embed([TEXTS[i]])[0], together[i])


def test_tuned_vectors_come_closer_to_the_encoder_s(encoder: Path) -> None:
    """On texts that it has not seen, and without any label."""
    tuned, untuned = (Static(folder=encoder, max_tuned=most).fit(TEXTS[::2]) for most in (4096, 0))
    new, wanted = TEXTS[1::2], tuned.encoder.embed(TEXTS[1::2])
    assert cosine(tuned.embed(new), wanted) > cosine(untuned.embed(new), wanted) + 0.01


def test_the_regression_finds_the_minimum() -> None:
    """At the tuned vectors, the derivative of squared error plus ridge is zero; unused tokens are only shifted."""
    rng = np.random.default_rng(0)
    distilled, target = rng.standard_normal((6, 3)).astype(np.float32), rng.standard_normal((20, 3)).astype(np.float32)
    tokens = [rng.integers(0, 5, size=rng.integers(1, 6)).tolist() for _ in range(20)]
    weight = rng.uniform(0.1, 1, 6)
    bags = np.zeros((20, 6))
    for row, ids in enumerate(tokens):
        np.add.at(bags[row], ids, weight[ids])
    bags /= bags.sum(axis=1, keepdims=True)
    start, found = (tune(distilled, weight, tokens, target, ridge=0.3, most=most) / weight[:, None] for most in (0, 6))
    slope = bags.T @ (bags @ found - target) + 0.3 * (found - start)
    np.testing.assert_allclose(slope[:5], 0, atol=1e-5)
    np.testing.assert_array_equal(found[5], start[5])


def test_serving_needs_neither_torch_nor_onnxruntime(fitted: Static, tmp_path: Path) -> None:
    """A process that loads the saved state and embeds imports `tokenizers` and numpy, and gets the same vectors."""
    save_component(fitted, tmp_path / "state")
    np.save(tmp_path / "vectors.npy", fitted.embed(NEW))
    code = f"""
import sys, pathlib, numpy as np
from tracer_serve.components.embedders.static import Static
from tracer_serve.components.persistence import load_component
again = load_component(Static, pathlib.Path({str(tmp_path / "state")!r}))
np.testing.assert_array_equal(again.embed({NEW!r}), np.load({str(tmp_path / "vectors.npy")!r}))
assert again.fingerprint == {fitted.fingerprint!r}
assert not {{"torch", "onnxruntime", "transformers", "sentence_transformers", "scipy", "sklearn"}} & {{*sys.modules}}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_fold_learns_from_its_training_texts_alone(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder embeds every text once; then no fold's vectors depend on the texts that it holds out."""
    task = write_task(tmp_path, embedder={"type": "static", "folder": str(encoder)})
    embedder = make_embedder(task, tmp_path / "cache")
    assert isinstance(embedder, Static)
    asked: list[int] = []
    before = embedder.encoder.embed

    def counted(texts: Sequence[Text]) -> Vectors:
        asked.append(len(texts))
        return before(texts)

    monkeypatch.setattr(embedder.encoder, "embed", counted)
    folds = Folds(Rows.of(TEXTS, ["x", "y", "z"] * (len(TEXTS) // 3)), embedder, 3, 0)
    assert not folds.prepared
    folds.prepare()
    for fold in range(3):
        train, _ = folds.split(fold)
        own = Static(folder=encoder).fit([TEXTS[i] for i in train])
        np.testing.assert_allclose(folds.inputs(fold).embeddings, own.embed(TEXTS), atol=1e-3)
    assert folds.prepared
    assert sum(asked) == len(TEXTS)


def test_unlabelled_texts_are_learned_from(encoder: Path, tmp_path: Path) -> None:
    """A refit gives what the store holds without a label to the embedder, and never to the certificate."""
    folder = {"type": "static", "folder": str(encoder)}
    task = write_task(tmp_path, embedder=folder, gate={"scope": {"keep": 1.0}}, fit={"folds": 2})
    refit(task)
    store = store_of(task)
    fingerprints = [open_versions(task).manifest(1).embedder]
    new = [Trace(new_id(), datetime.now(UTC), "test", text, decision="handled") for text in (*TEXTS, TEXTS[0])]
    store.traces.add(new)
    assert len(store.traces.without_label(1_000)) == len(TEXTS)
    assert store.traces.without_label(1) == [TEXTS[0]]
    store.close()
    refit(task)
    fingerprints.append(open_versions(task).manifest(2).embedder)
    assert fingerprints[0] != fingerprints[1]
    assert open_versions(task).manifest(2).traces == 300


def test_texts_without_a_token(encoder: Path, fitted: Static) -> None:
    """An empty text is the zero vector, and a fit on nothing else fails with a reason."""
    assert not fitted.embed([""]).any()
    assert np.isfinite(fitted.embed(["[MASK] card"])).all()
    with pytest.raises(FitError, match="found no tokens"):
        Static(folder=encoder).fit(["", " "])
    with pytest.raises(FitError, match="not fitted"):
        Static(folder=encoder).embed(["card"])


def test_pairs_of_texts(encoder: Path, tmp_path: Path) -> None:
    """For `input: pair` both sides are embedded, and the encoder sees each side before the folds."""
    traces = write_traces(tmp_path / "pairs.jsonl", ["x"], ["y"])
    task = write_task(
        tmp_path, input="pair", embedder={"type": "static", "folder": str(encoder)}, traces={"import": [traces.name]}
    )
    embedder = make_embedder(task)
    pairs: list[Text] = [("card was lost", "card failed"), ("good", "bad"), ("top up", "red sky")] * 4
    folds = Folds(Rows.of(pairs, ["x", "y", "z"] * 4), embedder, 2, 0)
    folds.prepare()
    assert folds.prepared
    assert folds.inputs(0).embeddings.shape[0] == 12
