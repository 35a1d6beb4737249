"""The exported graph, run by onnxruntime and tokenizers alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracer_serve.components.finetune.tokens import Tokens, cuts, tokenize
from tracer_serve.components.onnx_graph import check_interface, like_lengths, open_graph
from tracer_serve.types import Bools, Text, Vectors

_BATCH = 32
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


@dataclass(slots=True)
class OnnxEncoder:
    """A graph with its tokenizer; thread-safe.

    Parameters
    ----------
    graph : content of the ONNX file
    tokenizer : content of ``tokenizer.json``
    max_tokens : what is longer is cut
    pad : id that fills up a batch
    eight_bits : run each text alone: activations are scaled by batch, and a row must not depend on its neighbours
    """

    graph: bytes
    tokenizer: str
    max_tokens: int
    pad: int
    eight_bits: bool
    _session: Any = field(default=None, repr=False)

    def of(self, graph: bytes, *, eight_bits: bool) -> "OnnxEncoder":
        """Return the same with another graph."""
        return OnnxEncoder(graph, self.tokenizer, self.max_tokens, self.pad, eight_bits)

    def tokens(self, texts: Sequence[Text]) -> Tokens:
        """Tokenize n texts or pairs."""
        return tokenize(self.tokenizer, texts, self.max_tokens, self.pad)

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts or pairs are cut."""
        return cuts(self.tokenizer, texts, self.max_tokens)

    def logits(self, tokens: Tokens, classes: int) -> Vectors:
        """Return logits of n inputs, float32, shape (n, classes)."""
        session = self.open(classes)
        names = [one.name for one in session.get_inputs()]
        out = np.empty((len(tokens), classes), np.float32)
        for rows in like_lengths(tokens.lengths, 1 if self.eight_bits else _BATCH):
            batch = tokens.batch(rows)
            (out[rows],) = session.run(None, {name: batch[name] for name in names})
        return out

    def open(self, classes: int) -> Any:
        """Return the onnxruntime session, opened once.

        Raises
        ------
        ArtifactError
            If the graph is refused, or is none that turns tokens into this number of logits.
        """
        if self._session is None:
            session = open_graph(self.graph)
            check_interface(session, _INPUTS, classes)
            self._session = session
        return self._session

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxEncoder":
        """Return a copy without the session, which cannot be copied."""
        return self.of(self.graph, eight_bits=self.eight_bits)
