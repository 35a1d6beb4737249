"""An ONNX graph under construction: each operation returns the name of its result."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracer_serve.errors import PluginError

_OPSET, _IR = 17, 8  # what onnxruntime 1.14 and its builds for browsers read


class Graph:
    """Nodes and constants in the order in which they were added.

    Raises
    ------
    PluginError
        If the package onnx is not installed.
    """

    def __init__(self) -> None:
        try:
            from onnx import helper, numpy_helper  # noqa: PLC0415  # an optional extra
        except ModuleNotFoundError as error:
            raise PluginError(
                f"export needs the package {error.name!r}. Try: pip install '.[onnx]' in a checkout of tracer-serve"
            ) from error
        self._helper: Any = helper
        self._numpy: Any = numpy_helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add an operation; return the name of its result, or a tuple of several."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(self._helper.make_node(kind, [*inputs], names, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add an array, or a number as one of shape (1,)."""
        name = f"constant_{len(self._constants)}"
        array = np.ascontiguousarray(np.atleast_1d(value), dtype)
        self._constants.append(self._numpy.from_array(array, name))
        return name

    def cast(self, value: str, dtype: Any) -> str:
        """Convert to another type of numbers."""
        return str(self.op("Cast", value, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def name(self, value: str, output: str) -> None:
        """Call a result by the name of an output."""
        self._nodes.append(self._helper.make_node("Identity", [value], [output]))

    def write(
        self,
        file: Path,
        inputs: Mapping[str, tuple[Any, Sequence[Any]]],
        outputs: Mapping[str, tuple[Any, Sequence[Any]]],
        facts: Mapping[str, Any],
    ) -> None:
        """Check the graph and write it.

        Parameters
        ----------
        inputs, outputs : type and shape of each, by name
        facts : metadata; values that are no strings become JSON
        """
        from onnx import checker, save_model  # noqa: PLC0415

        def infos(values: Mapping[str, tuple[Any, Sequence[Any]]]) -> list[Any]:
            of = self._helper.np_dtype_to_tensor_dtype
            return [
                self._helper.make_tensor_value_info(k, of(np.dtype(kind)), shape) for k, (kind, shape) in values.items()
            ]

        graph = self._helper.make_graph(self._nodes, "policy", infos(inputs), infos(outputs), self._constants)
        opset = self._helper.make_opsetid("", _OPSET)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="tracer-serve")
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
        self._helper.set_model_props(model, texts)
        checker.check_model(model, full_check=True)
        save_model(model, str(file))
