"""Cut long texts into windows of a model's length, by the model's own tokenizer."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tracer_serve.components.truncation import may_exceed
from tracer_serve.errors import PluginError
from tracer_serve.types import Bools

_SLACK = 4  # a word at a window's edge may be tokenized differently


class TokenWindows:
    """Windows of a text with at most `max_tokens` tokens each.

    Parameters
    ----------
    file : the model's ``tokenizer.json``
    max_tokens : maximum length, special tokens included
    prompt : prefix that the model adds to every text
    """

    def __init__(self, file: Path, max_tokens: int, prompt: str = "") -> None:
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415  # only for pretrained models
        except ModuleNotFoundError as error:
            raise PluginError(
                f"a tokenizer needs {error.name!r}. Try: pip install '.[onnx]' in a checkout of tracer-serve"
            ) from error
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._room = max(_SLACK + 1, max_tokens - len(self._tokenizer.encode(prompt).ids))

    def exceeded(self, texts: Sequence[str]) -> Bools:
        """Return which texts have more tokens than a window, shape (n,)."""
        return np.array([len(self._offsets(text)) > self._room for text in texts], bool)

    def cut(self, text: str) -> list[str]:
        """Return the windows of a text, about equally long; the text itself if it fits."""
        offsets = self._offsets(text)
        if len(offsets) <= self._room:
            return [text]
        size = math.ceil(len(offsets) / math.ceil(len(offsets) / (self._room - _SLACK)))
        parts = [offsets[start : start + size] for start in range(0, len(offsets), size)]
        return [text[part[0][0] : part[-1][1]] for part in parts]

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Return first and last character of each token; empty if the text is certainly short enough."""
        if not may_exceed(text, self._room):
            return []
        found: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return found
