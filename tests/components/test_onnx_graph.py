"""Batches for a graph, and its 8-bit weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.components.onnx_graph import OPSET, like_lengths, open_graph, quantize

RUN = 22  # tokens' worth of a run by itself


def cost(lengths: list[int], most: int) -> int:
    """Return what the batches cost, in tokens: each row at the longest one's length, and each run by itself."""
    found = like_lengths(np.array(lengths), most)
    return sum(RUN + len(rows) * max(lengths[i] for i in rows) for rows in found)


def least(lengths: list[int], most: int) -> int:
    """Return the least that any batches of neighbours in length cost, by trying all of them."""
    ordered, best = sorted(lengths), [0]
    for end, longest in enumerate(ordered, start=1):
        best.append(min(best[start] + RUN + (end - start) * longest for start in range(max(0, end - most), end)))
    return best[-1]


@given(st.lists(st.integers(1, 128), min_size=1, max_size=60), st.integers(1, 32))
def test_batches_cost_little_more_than_the_best_ones(lengths: list[int], most: int) -> None:
    """Padding and runs together cost at most a third more than the best batches that there are."""
    assert cost(lengths, most) <= 1.34 * least(lengths, most)


@pytest.mark.parametrize(("lengths", "runs"), [([], 0), ([7] * 64, 2), ([7] * 31 + [90], 2), ([7, 8, 9], 1)])
def test_a_run_is_spent_where_padding_would_cost_more(lengths: list[int], runs: int) -> None:
    """Equal lengths fill their batches, one long text has a run of its own, and a few tokens are padded."""
    assert len(list(like_lengths(np.array(lengths, np.int64), 32))) == runs


def test_quantised_products_do_not_saturate(tmp_path: Path) -> None:
    """Weights and activations at their extremes give the product in float32, within 2 %, on any CPU."""
    weight = onnx.numpy_helper.from_array(np.ones((64, 8), np.float32), "weight")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [value("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 8])],
        [weight],
    )
    file = tmp_path / "product.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=9), file)
    quantize(file)
    stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer]
    assert max(np.abs(one.astype(int)).max() for one in stored if one.dtype == np.int8) <= 64
    (product,) = open_graph(file).run(None, {"x": np.ones((2, 64), np.float32)})
    np.testing.assert_allclose(product, 64.0, rtol=0.02)
