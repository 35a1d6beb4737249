"""Check an ONNX file before onnxruntime reads it: one file, bounded tensors, no foreign or endless operators.

Reads protobuf's wire format (https://protobuf.dev/programming-guides/encoding) with the field numbers of onnx.proto3,
because serving an export needs no package `onnx`. A check takes milliseconds: the content of tensors is skipped.
"""

import math
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_EXTERNAL = 1, (13, 14)
_DOMAINS = ("", "ai.onnx", "com.microsoft")  # the operators that onnxruntime itself brings
_ENDLESS = ("Loop", "Scan")  # an encoder's export has none: its depth is fixed
_MOST_NESTED = 8
_MOST_VARINT = 70  # bits of ten bytes
_PER_BYTE = 2  # 4-bit numbers are the smallest that a tensor holds


def check_graph(content: memoryview) -> None:
    """Check a serialised ONNX model, without executing anything and without copying its tensors.

    Raises
    ------
    ValueError
        If the file is not ONNX, refers to another file, has a tensor that is larger than the file, functions of its
        own, sparse tensors, an operator of a foreign domain, or a loop.
    """
    graphs = 0
    for number, value in _fields(content):
        if number == _MODEL_FUNCTIONS:
            raise ValueError("it defines functions, which could expand without bound")
        if number == _MODEL_GRAPH:
            graphs += 1
            _check_nodes(_message(value), len(content), 0)
    if not graphs:
        raise ValueError("it has no graph")


def _check_nodes(graph: memoryview, size: int, depth: int) -> None:
    if depth > _MOST_NESTED:
        raise ValueError(f"its graphs are nested more than {_MOST_NESTED} deep")
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            _check_node(_message(value), size, depth)
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(_message(value), size)
        elif number == _GRAPH_SPARSE:
            raise ValueError("it has a sparse tensor, which could expand without bound")


def _check_node(node: memoryview, size: int, depth: int) -> None:
    operator = domain = ""
    for number, value in _fields(node):
        if number == _NODE_OPERATOR:
            operator = bytes(_message(value)).decode()
        elif number == _NODE_DOMAIN:
            domain = bytes(_message(value)).decode()
        elif number == _NODE_ATTRIBUTE:
            _check_attribute(_message(value), size, depth)
    if domain not in _DOMAINS:
        raise ValueError(f"it uses the custom operator {domain[:80]}.{operator[:80]}")
    if operator in _ENDLESS:
        raise ValueError(f"it uses the operator {operator}, which could run without end")


def _check_attribute(attribute: memoryview, size: int, depth: int) -> None:
    for number, value in _fields(attribute):
        if number in _ATTRIBUTE_TENSORS:
            _check_tensor(_message(value), size)
        elif number in _ATTRIBUTE_GRAPHS:
            _check_nodes(_message(value), size, depth + 1)
        elif number in _ATTRIBUTE_SPARSE:
            raise ValueError("it has a sparse tensor, which could expand without bound")


def _check_tensor(tensor: memoryview, size: int) -> None:
    dims = list[int]()
    for number, value in _fields(tensor):
        if number in _TENSOR_EXTERNAL and value != 0:
            raise ValueError("it keeps weights in another file")
        if number == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else _varints(value)
    elements = math.prod(dims)
    if any(dim >= 1 << 63 for dim in dims) or elements > _PER_BYTE * size:
        raise ValueError(f"it has a tensor of shape {dims[:8]}, larger than the file")


def _fields(message: memoryview) -> Iterator[tuple[int, "int | memoryview"]]:
    """Yield the number and the value of each field: an int, or the bytes of a string, message or packed list."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("it is not an ONNX file")
        if length > len(message) - place:
            raise ValueError("it is cut off, or is not an ONNX file")
        yield key >> 3, message[place : place + length]
        place += length


def _message(value: "int | memoryview") -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is not an ONNX file")  # noqa: TRY004  # of the file, not of an argument
    return value


def _varints(packed: memoryview) -> list[int]:
    values, place = list[int](), 0
    while place < len(packed):
        value, place = _varint(packed, place)
        values.append(value)
    return values


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return an unsigned number and the place behind it."""
    value = 0
    for shift in range(0, _MOST_VARINT, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the last byte of a number
            return value, place
    raise ValueError("it is cut off, or is not an ONNX file")
