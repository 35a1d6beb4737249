"""Tokenize texts and pairs, truncate them, and batch inputs of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracer_serve.components.onnx_graph import padded
from tracer_serve.components.pretrained import readable
from tracer_serve.components.truncation import may_exceed
from tracer_serve.errors import PluginError
from tracer_serve.types import Bools, Ints, Text


@dataclass(frozen=True, slots=True)
class Tokens:
    """n tokenized inputs.

    Parameters
    ----------
    ids : token ids of each input
    types : which side of a pair each token belongs to, 0 or 1
    pad : id that fills up a batch
    """

    ids: list[list[int]]
    types: list[list[int]]
    pad: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Ints:
        """Number of tokens of each input, shape (n,)."""
        return np.array([len(ids) for ids in self.ids], np.int64)

    def take(self, rows: Ints) -> "Tokens":
        """Return the rows given by index."""
        return Tokens([self.ids[i] for i in rows], [self.types[i] for i in rows], self.pad)

    def batch(self, rows: Ints) -> dict[str, NDArray[Any]]:
        """Return the rows given by index as padded arrays, each of shape (rows, tokens)."""
        ids = [self.ids[i] for i in rows]
        return {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([[1] * len(row) for row in ids]),
            "token_type_ids": padded([self.types[i] for i in rows]),
        }

    def shuffled(self, size: int, rng: np.random.Generator) -> list[Ints]:
        """Return one epoch's batches in random order; within pools of 16 batches, similar lengths share a batch."""
        rows, lengths = rng.permutation(len(self)), self.lengths
        pools = [rows[start : start + 16 * size] for start in range(0, len(rows), 16 * size)]
        batches = []
        for pool in pools:
            alike = pool[np.argsort(lengths[pool], kind="stable")]
            batches += [alike[start : start + size] for start in range(0, len(alike), size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def tokenize(tokenizer: str, texts: Sequence[Text], max_tokens: int, pad: int = 0) -> Tokens:
    """Tokenize n texts or pairs and truncate them, of a pair the longer side first.

    Parameters
    ----------
    tokenizer : content of a Hugging Face ``tokenizer.json``
    """
    found = _tokenizer(tokenizer, max_tokens).encode_batch([_readable(text) for text in texts])
    return Tokens([one.ids for one in found], [one.type_ids for one in found], pad)


def cuts(tokenizer: str, texts: Sequence[Text], max_tokens: int) -> Bools:
    """Return which texts or pairs have more tokens than `max_tokens`, shape (n,); arguments as in `tokenize`."""
    found = np.array([may_exceed(text, max_tokens) for text in texts], bool)
    rows = np.flatnonzero(found)
    if len(rows):
        read = _tokenizer(tokenizer, max_tokens).encode_batch([_readable(texts[i]) for i in rows.tolist()])
        found[rows] = [bool(one.overflowing) for one in read]
    return found


def _readable(text: Text) -> Text:
    return readable(text) if isinstance(text, str) else (readable(text[0]), readable(text[1]))


@lru_cache(maxsize=4)
def _tokenizer(content: str, max_tokens: int) -> Any:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  # only where an encoder is used
    except ModuleNotFoundError as error:
        raise PluginError(
            f"an encoder needs {error.name!r}. Try: pip install '.[onnx]' in a checkout of tracer-serve"
        ) from error
    tokenizer = Tokenizer.from_str(content)
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer
