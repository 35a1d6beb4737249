"""Embed texts as means of token vectors, distilled from a sentence encoder and tuned on the task's own texts."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tracer_serve.components import pretrained
from tracer_serve.components.embedders._bag_regression import tune
from tracer_serve.components.embedders._token_table import token_table
from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers
from tracer_serve.components.registry import embedders
from tracer_serve.errors import ArtifactError, BadInputError, FitError, PluginError
from tracer_serve.protocols import Embedder
from tracer_serve.types import Bools, Floats, Text, Vectors

_RARE = 1e-3  # a token of that share of all tokens weighs half (Arora et al., 2017)
_TABLE, _TOKENIZER, _STATE = "table.npy", "tokenizer.json", "static.json"
_MANY = 8  # texts from which the tokenizer's threads are worth their start


@embedders.register("static")
class Static:
    """Unit-norm sums of token vectors that imitate a sentence encoder at a hundredth of its cost.

    A fit takes each token's vector by the encoder (model2vec), weighs it by its rarity in the texts (SIF; Arora et al.,
    2017, "A simple but tough-to-beat baseline for sentence embeddings"), and then moves the vectors of the texts'
    tokens so that a text's mean comes close to the encoder's vector of the whole text: a ridge regression without
    labels. Served by `tokenizers` and numpy alone; a fit needs the extra `minilm`, or `onnx` and
    `sentence-transformers`. A text's vector does not depend on its batch.

    Parameters
    ----------
    model : encoder to imitate: name on the Hugging Face hub, or a folder; see `sentence_transformers`
    folder : a model's folder, relative to the YAML; used instead of `model`
    revision : commit or tag on the hub; None: the newest in the cache
    ridge : pull of the tuned vectors towards the distilled ones; more suits fewer texts
    max_tuned : number of tokens that are tuned, the most common ones of the texts
    max_chars : number of characters of a text that are read
    """

    trainable = True

    def __init__(
        self,
        *,
        model: str = pretrained.MINILM,
        folder: Path | None = None,
        revision: str | None = None,
        ridge: Annotated[float, Field(gt=0)] = 0.2,
        max_tuned: Annotated[int, Field(ge=0, le=32_768)] = 4_096,
        max_chars: Annotated[int, Field(ge=1)] = 8_000,
    ) -> None:
        self.model = SentenceTransformers(model=model, folder=folder, revision=revision, backend="onnx")
        self.encoder: Embedder = self.model
        self.ridge, self.max_tuned, self.max_chars = ridge, max_tuned, max_chars
        self.targets = _Targets()
        self.tokenizer_json, self.digest = "", ""
        self.table: NDArray[np.float16] = np.empty((0, 0), np.float16)

    @property
    def fingerprint(self) -> str:
        """Hash of the fitted state; the encoder speaks through it."""
        state = json.dumps([self.max_chars, self.digest])
        return "static-" + hashlib.sha256(state.encode()).hexdigest()[:24]

    def imitate(self, texts: Sequence[Text]) -> None:
        """Let the encoder embed n texts, once for all fits on some of them."""
        self.targets.add(self.encoder, self._read(texts))

    def fit(self, texts: Sequence[Text]) -> Self:
        """Distil the encoder, and tune the vectors of the tokens of n texts.

        Raises
        ------
        FitError
            If no text contains a token.
        PluginError
            If a package that a fit needs is missing.
        """
        self.imitate(texts)
        distilled, self.tokenizer_json = token_table(self.model.export)
        self.__dict__.pop("_tokenizer", None)
        read = self._read(texts)
        tokens = self._tokens(read)
        if not any(tokens):
            raise FitError("the static embedder found no tokens in the texts; are the inputs empty?")
        share = np.bincount(np.concatenate([np.array(ids, np.int64) for ids in tokens]), minlength=len(distilled))
        weight: Floats = (_RARE / (_RARE + share / share.sum())).astype(np.float32)
        table = tune(distilled, weight, tokens, self.targets.of(read), ridge=self.ridge, most=self.max_tuned)
        self.table = (table / max(float(np.abs(table).max()), 1e-12)).astype(np.float16)  # directions alone count
        state = hashlib.sha256(self.table.tobytes())
        state.update(self.tokenizer_json.encode())
        self.digest = state.hexdigest()
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return unit-norm float32 vectors, shape (n, d); zero for a text without tokens."""
        if not self.digest:
            raise FitError("the static embedder is not fitted; call fit(texts), or load a version")
        out = np.zeros((len(texts), self.table.shape[1]), np.float32)
        for i, tokens in enumerate(self._tokens(self._read(texts))):
            total = np.add.reduce(self.table[tokens], axis=0, dtype=np.float32)
            out[i] = total / max(float(np.sqrt(total @ total)), 1e-12)
        return out

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts are longer than `max_chars`."""
        return np.array([len(text) > self.max_chars for text in texts], bool)

    def save(self, folder: Path) -> None:
        """Write token vectors, tokenizer and parameters: all that serving needs."""
        np.save(folder / _TABLE, self.table, allow_pickle=False)
        (folder / _TOKENIZER).write_text(self.tokenizer_json, encoding="utf-8")
        state = {"ridge": self.ridge, "max_tuned": self.max_tuned, "max_chars": self.max_chars}
        (folder / _STATE).write_text(json.dumps(state | {"digest": self.digest}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        try:
            state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            digest = state.pop("digest")
            static = cls(**state)
            static.table = np.load(folder / _TABLE, allow_pickle=False)
            static.tokenizer_json = (folder / _TOKENIZER).read_text(encoding="utf-8")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: the state of a static embedder cannot be read: {error}") from error
        static.digest = digest
        static._tokens(["a"])  # builds the tokenizer now, so that the first text does not wait for it
        return static

    def _read(self, texts: Sequence[Text]) -> list[str]:
        if not all(isinstance(text, str) for text in texts):
            raise BadInputError("static embeds single texts; for `input: pair` it is wrapped in PairEmbedder")
        return [pretrained.readable(str(text)[: self.max_chars]) for text in texts]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""
        tokenizer = self._tokenizer
        if len(texts) < _MANY:
            return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        return [found.ids for found in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415  # an optional extra
        except ModuleNotFoundError as error:
            raise PluginError(
                f"the static embedder needs {error.name!r}. Try: pip install '.[static]' in a checkout of tracer-serve"
            ) from error
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


class _Targets:
    """The encoder's vectors of texts; copies of an embedder share them."""

    def __init__(self) -> None:
        self._vectors: dict[str, Vectors] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Targets":
        return self

    def add(self, encoder: Embedder, texts: Sequence[str]) -> None:
        """Embed what is not known."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, encoder.embed(new) if new else (), strict=True))

    def of(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of known texts, shape (n, d)."""
        return np.stack([self._vectors[text] for text in texts])
