"""What every ONNX graph here has in common: opening it, padding its batches, and its 8-bit weights."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracer_serve.errors import PluginError

OPSET = 17


def open_graph(graph: Path | bytes) -> Any:
    """Return an onnxruntime session of a graph, on as many threads as ``OMP_NUM_THREADS`` says (0: all cores).

    Raises
    ------
    PluginError
        Where onnxruntime is not installed.
    """
    try:
        from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415  # only where a graph is run
    except ModuleNotFoundError as error:
        raise PluginError(f"an ONNX graph needs {error.name!r}. Try: pip install 'tracer-serve[onnx]'") from error
    options = SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    options.log_severity_level = 3
    return InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def padded(tokens: Sequence[Sequence[int]], value: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return rows of any lengths as one int64 array, filled up with `value`.

    Examples
    --------
    >>> padded([[7, 8], [9]]).tolist()
    [[7, 8], [9, 0]]
    """
    out = np.full((len(tokens), max(map(len, tokens))), value, np.int64)
    for row, found in enumerate(tokens):
        out[row, : len(found)] = found
    return out


def quantize(file: Path) -> None:
    """Turn a graph's weights into 8 bits per output channel, in place; activations are scaled as they come.

    Raises
    ------
    PluginError
        Where the package onnx is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  # only for the export
    except ModuleNotFoundError as error:
        raise PluginError(f"8 bits need {error.name!r}. Try: pip install 'tracer-serve[onnx]'") from error
    full = file.with_suffix(".fp32")
    file.rename(full)
    logging.disable(logging.WARNING)  # it would tell the root logger of an optional step
    try:
        quantize_dynamic(full, file, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    full.unlink()
