"""Vectors of single tokens: each token of an encoder's vocabulary once through the encoder (Minish Lab's model2vec).

Kept under ``$TRACER_SERVE_STATE/static``, one file per export: 30,000 tokens take about a minute of CPU.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from tracer_serve.components.embedders import _onnx
from tracer_serve.errors import ArtifactError
from tracer_serve.types import Vectors

_BATCH = 256  # tokens per run of the graph
_PROBE = "a"


def token_table(export: Path) -> tuple[Vectors, str]:
    """Return the vector of each token by itself, shape (v, d), and the tokenizer as JSON.

    Parameters
    ----------
    export : folder of the encoder's ONNX export

    Raises
    ------
    ArtifactError
        If the stored table cannot be read.
    """
    key = hashlib.sha256(json.dumps(_onnx.fingerprint(export)).encode()).hexdigest()[:24]
    file = Path(os.environ.get("TRACER_SERVE_STATE", ".tracer")).resolve() / "static" / f"{key}.npy"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            np.save(Path(scratch) / file.name, _distilled(export), allow_pickle=False)
            (Path(scratch) / file.name).replace(file)
    try:
        table: Vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, MemoryError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}; delete it and fit again") from error
    return table, _onnx.tokenizer_file(export).read_text(encoding="utf-8")


def _distilled(export: Path) -> Vectors:
    """Return the encoder's vector of each token between the special tokens that surround every text."""
    from tokenizers import Tokenizer  # noqa: PLC0415  # with the ONNX packages only

    run, tokenizer = _onnx.run_tokens(export), Tokenizer.from_file(str(_onnx.tokenizer_file(export)))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    (inner,), around = (tokenizer.encode(_PROBE, add_special_tokens=special).ids for special in (False, True))
    tokens = np.sort([*tokenizer.get_vocab(with_added_tokens=False).values()])
    rows = np.tile(np.array(around, np.int64), (len(tokens), 1))
    rows[:, around.index(inner)] = tokens
    vectors = np.concatenate([run(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)])
    # a model need not have a vector of a token that was added to its tokenizer
    table = np.zeros((1 + max(tokenizer.get_vocab().values()), vectors.shape[1]), np.float32)
    table[tokens] = vectors
    return table
