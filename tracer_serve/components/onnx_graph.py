"""ONNX graphs: open a session, pad batches, quantise weights to 8 bits."""

import logging
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np

from tracer_serve.components.onnx_check import check_graph
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.infra.parallel import cores
from tracer_serve.types import Ints

OPSET = 17
_MOST_THREADS = 4  # per run; a short text does not use more
# Fixed cost of a run, in tokens: reading the weights from memory. It grows with the weights, as the cost per token
# does, so the ratio depends on the machine, not on the model; between 15 and 40 it hardly matters.
_RUN_TOKENS = 22


def open_graph(graph: Path | bytes) -> Any:
    """Return an onnxruntime session of a graph, with one thread per core that this process may use.

    Idle threads sleep. By default they spin, which doubles the CPU of a text, and under other load also its time.

    Raises
    ------
    ArtifactError
        If the file is not sound (`onnx_check`), or onnxruntime refuses it.
    PluginError
        If onnxruntime is not installed.
    """
    try:
        from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415  # only where a graph is run
    except ModuleNotFoundError as error:
        raise PluginError(
            f"an ONNX graph needs {error.name!r}. Try: pip install '.[onnx]' in a checkout of tracer-serve"
        ) from error
    options = SessionOptions()
    options.intra_op_num_threads = min(cores(), _MOST_THREADS)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        check_graph(memoryview(graph.read_bytes() if isinstance(graph, Path) else graph))
        return InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a hostile file makes onnxruntime raise anything
        named = f"{graph}: the" if isinstance(graph, Path) else "the"
        raise ArtifactError(f"{named} ONNX graph is refused: {' '.join(str(error).split())[:400]}") from error


def check_interface(session: Any, inputs: AbstractSet[str], width: int) -> None:
    """Check that a session turns tokens into one array of shape (texts, width), as far as its graph declares shapes.

    Raises
    ------
    ArtifactError
        If it wants other inputs, or gives something else.
    """
    names, shapes = {one.name for one in session.get_inputs()}, [one.shape for one in session.get_outputs()]
    found = shapes[0] if len(shapes) == 1 else []
    if not names <= inputs or len(found) != 2 or (isinstance(found[1], int) and found[1] != width):  # noqa: PLR2004
        raise ArtifactError(
            f"the ONNX graph turns {sorted(names)} into {shapes}, not {sorted(inputs)} into {width} numbers per text"
        )


def padded(tokens: Sequence[Sequence[int]], value: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return rows of any lengths as one int64 array, padded with `value`.

    Examples
    --------
    >>> padded([[7, 8], [9]]).tolist()
    [[7, 8], [9, 0]]
    """
    out = np.full((len(tokens), max(map(len, tokens))), value, np.int64)
    for row, found in enumerate(tokens):
        out[row, : len(found)] = found
    return out


def like_lengths(lengths: Ints, most: int) -> Iterator[Ints]:
    """Yield all rows in batches of similar length, at most `most` rows each.

    A batch ends if padding its rows to the next row's length would cost more than another run.

    Parameters
    ----------
    lengths : in tokens, shape (n,)

    Examples
    --------
    >>> [rows.tolist() for rows in like_lengths(np.array([9, 8, 90, 9]), most=32)]
    [[1, 0, 3], [2]]
    """
    order = np.argsort(lengths, kind="stable")
    start = tokens = 0
    for end, length in enumerate(lengths[order].tolist()):
        if end - start == most or (end - start) * length - tokens > _RUN_TOKENS:
            yield order[start:end]
            start = end
            tokens = 0
        tokens += length
    if len(order):
        yield order[start:]


def quantize(file: Path) -> None:
    """Quantise a graph's weights per output channel, in place; activations are scaled at run time.

    Weights keep 7 of the 8 bits. CPUs without VNNI add two products of an unsigned and a signed byte in 16 bits, and
    saturate if weights use all 8: the same graph would then give other answers on another CPU (ONNX Runtime,
    "Quantize ONNX models", `reduce_range`).

    Raises
    ------
    PluginError
        If the package onnx is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  # only for the export
    except ModuleNotFoundError as error:
        raise PluginError(
            f"8 bits need {error.name!r}. Try: pip install '.[onnx]' in a checkout of tracer-serve"
        ) from error
    full = file.with_suffix(".fp32")
    file.rename(full)
    logging.disable(logging.WARNING)  # the root logger would warn of an optional step
    try:
        quantize_dynamic(full, file, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        logging.disable(logging.NOTSET)
    full.unlink()
