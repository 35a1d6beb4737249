"""Export a sentence-transformers model to one ONNX graph by torch; run it with onnxruntime and tokenizers only.

Exports are stored in ``$TRACER_SERVE_STATE/onnx`` (default ``.tracer/onnx``) and shared by all tasks and versions. The
graph contains every module listed in the model's modules.json; only tokenizing happens outside.

8 bits: weights are quantised per output channel, activations dynamically (Jacob et al., 2018). Per channel instead of
per tensor raises the cosine between MiniLM's vectors and fp32 from .969 to .994 at the same size. The scale of the
activations is computed over a whole batch, so a text's vector would depend on its batch as much as on quantisation
(.992). Each text is therefore run alone, for 10 % more CPU, and has the same vector at fit, certification and serving.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracer_serve.components import pretrained
from tracer_serve.components.embedders._token_windows import TokenWindows
from tracer_serve.components.onnx_graph import OPSET, check_interface, like_lengths, open_graph, padded, quantize
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.types import Vectors

Tokens = NDArray[np.int64]
_FORMAT = 1
_GRAPH, _TOKENIZER, _META = "model.onnx", "tokenizer.json", "export.json"
_PROBES = ("Hi", "I LOST my card yesterday, what now?", "one two three four five six seven eight nine ten " * 4)
_LEAST_COSINE = {"onnx": 0.9999, "onnx-int8": 0.95}


def exported(model: str, revision: str | None, backend: str) -> Path:
    """Return the folder of a model's export; export it first if it is missing or the weights have changed.

    Raises
    ------
    PluginError
        If an export needs torch and torch is missing, or the graph's vectors differ from the model's.
    """
    target = _target(model, revision, backend)
    weights = pretrained.local(model, revision)
    if _is_current(target, weights):
        return target
    source = pretrained.locate(model, revision)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        _export(source, Path(scratch) / "new", backend)
        if not _is_current(target, weights):  # otherwise another process has exported it meanwhile
            if target.exists():
                target.rename(Path(scratch) / "old")
            (Path(scratch) / "new").rename(target)
    return target


def adopt(folder: Path, model: str, revision: str | None, backend: str) -> None:
    """Copy an export made on another machine to where `exported` looks, unless one exists."""
    target = _target(model, revision, backend)
    if (target / _META).is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        shutil.copytree(folder, Path(scratch) / "new")
        with contextlib.suppress(OSError):  # another process has copied it meanwhile
            (Path(scratch) / "new").rename(target)


def _target(model: str, revision: str | None, backend: str) -> Path:
    key = hashlib.sha256(json.dumps([_FORMAT, model, revision, backend]).encode()).hexdigest()[:24]
    return Path(os.environ.get("TRACER_SERVE_STATE", ".tracer")).resolve() / "onnx" / key


def fingerprint(folder: Path) -> list[str]:
    """Return a fingerprint of an export's vectors: hashes, maximum length and prompt."""
    meta = _meta(folder)
    return [meta["files"][_GRAPH], meta["files"][_TOKENIZER], str(meta["max_tokens"]), meta["prompt"]]


def windows(folder: Path, max_tokens: int | None) -> TokenWindows:
    """Return a splitter of texts into windows of the model's length, or of `max_tokens`."""
    meta = _meta(folder)
    return TokenWindows(folder / _TOKENIZER, max_tokens or meta["max_tokens"], meta["prompt"])


def load(folder: Path, max_tokens: int | None, *, alone: bool) -> Callable[[list[str], int], Vectors]:
    """Return a thread-safe function of texts and batch size; `alone` runs each text by itself."""
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  # only for this backend
    except ModuleNotFoundError as error:
        raise PluginError(
            f"the onnx backends need {error.name!r}. Try: pip install '.[onnx]' in a checkout of tracer-serve"
        ) from error
    meta, run = _meta(folder), run_tokens(folder)
    with pretrained.reading(folder):
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    tokenizer.enable_truncation(max_tokens or meta["max_tokens"])
    tokenizer.no_padding()

    def encode(texts: list[str], batch_size: int) -> Vectors:
        tokens = [encoding.ids for encoding in tokenizer.encode_batch([meta["prompt"] + text for text in texts])]
        out = np.empty((len(texts), meta["dim"]), np.float32)
        for rows in like_lengths(np.array([len(ids) for ids in tokens], np.int64), 1 if alone else batch_size):
            some = [tokens[i] for i in rows.tolist()]
            out[rows] = run(padded(some), padded([[1] * len(ids) for ids in some]))
        return out

    return encode


def run_tokens(folder: Path) -> Callable[..., Vectors]:
    """Return a thread-safe function of token ids and, where rows are padded, their mask, both int64, shape (n, t)."""
    meta = _meta(folder)
    for name, sha256 in meta["files"].items():
        pretrained.verify(folder / name, sha256)
    session = open_graph(folder / _GRAPH)
    check_interface(session, {"input_ids", "attention_mask"}, meta["dim"])

    def run(tokens: Tokens, mask: Tokens | None = None) -> Vectors:
        given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens) if mask is None else mask}
        vectors: Vectors = session.run(None, given)[0]
        return vectors

    return run


def tokenizer_file(folder: Path) -> Path:
    """Return the tokenizer of an export."""
    return folder / _TOKENIZER


def _is_current(target: Path, weights: Path | None) -> bool:
    """Return whether an export exists and, if the weights are local, was made from them."""
    if not (target / _META).is_file():
        return False
    return weights is None or bool(_meta(target)["weights"] == pretrained.hash_folder(weights))


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / _META} cannot be read: {error}; delete {folder} and fit again") from error
    return meta


def _export(source: Path, folder: Path, backend: str) -> None:
    """Write graph, tokenizer and metadata into a new folder, and compare its vectors with the model's."""
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # slow to import: loads torch
    except ModuleNotFoundError as error:
        raise PluginError(
            f"exporting {source.name!r} to ONNX needs the package {error.name!r}: fit once where"
            " the extras `onnx` and `sentence-transformers` are installed; serving the export then needs no torch"
        ) from error
    pretrained.quiet()
    kwargs = {"use_safetensors": True, "attn_implementation": "eager"}
    with pretrained.reading(source):
        model = SentenceTransformer(str(source), device="cpu", local_files_only=True, model_kwargs=kwargs)
    folder.mkdir()
    with warnings.catch_warnings():  # tracing warns about every Python condition; the vectors are compared below
        warnings.simplefilter("ignore")
        _write_graph(model, folder / _GRAPH)
        if backend == "onnx-int8":
            quantize(folder / _GRAPH)
    shutil.copyfile(source / _TOKENIZER, folder / _TOKENIZER)
    facts = {
        "weights": pretrained.hash_folder(source),
        "max_tokens": int(model.max_seq_length),
        "dim": int(model.get_embedding_dimension()),
        "prompt": model.prompts.get(model.default_prompt_name, "") if model.default_prompt_name else "",
        "files": {name: pretrained.hash_file(folder / name) for name in (_GRAPH, _TOKENIZER)},
    }
    (folder / _META).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    own = model.encode(list(_PROBES), normalize_embeddings=True, show_progress_bar=False)
    found = load(folder, None, alone=backend == "onnx-int8")(list(_PROBES), len(_PROBES))
    cosine = float((own * found).sum(axis=1).min())
    if not cosine >= _LEAST_COSINE[backend]:
        raise PluginError(
            f"the ONNX export of {source} gives other vectors than the model (cosine {cosine:.4f});"
            " use `backend: torch`"
        )


def _write_graph(model: Any, file: Path) -> None:
    import torch  # noqa: PLC0415  # only for the export

    class Whole(torch.nn.Module):
        """Torch module from token ids to unit-norm vectors, with all modules of the model."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            out = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return torch.nn.functional.normalize(out["sentence_embedding"], dim=1)

    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    axes = {0: "text", 1: "token"}
    torch.onnx.export(
        Whole().eval(),
        (torch.ones(2, 7, dtype=torch.long), mask),
        str(file),
        input_names=["input_ids", "attention_mask"],
        output_names=["embedding"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "embedding": {0: "text"}},
        opset_version=OPSET,
        dynamo=False,
    )
