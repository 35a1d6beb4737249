"""Model files that somebody else wrote, where no checksum guards them: refused by name, and nothing in them runs."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.surrogates.worlds import blobs
from tracer_serve.components import pretrained
from tracer_serve.components.embedders import _onnx
from tracer_serve.components.finetune.onnx_model import OnnxEncoder
from tracer_serve.components.finetune.recipe import Tuned
from tracer_serve.components.onnx_check import check_graph
from tracer_serve.components.onnx_graph import OPSET, open_graph
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates.encoder import Encoder
from tracer_serve.errors import ArtifactError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
_MB = 1_000_000
_TOKENIZER = json.dumps(
    {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}
)


def graph(*nodes: Any, weights: Any = (), width: int = 2, custom: str = "", functions: Any = ()) -> bytes:
    """A model of token ids to an output of a width, with its own nodes in front of an Identity."""
    value = onnx.helper.make_tensor_value_info
    inner = onnx.helper.make_graph(
        [*nodes, onnx.helper.make_node("Cast", ["input_ids"], ["out"], to=onnx.TensorProto.FLOAT)],
        "g",
        [value("input_ids", onnx.TensorProto.INT64, ["text", width])],
        [value("out", onnx.TensorProto.FLOAT, ["text", width])],
        list(weights),
    )
    domains = [onnx.helper.make_opsetid("", OPSET), *([onnx.helper.make_opsetid(custom, 1)] if custom else [])]
    model = onnx.helper.make_model(inner, opset_imports=domains, ir_version=8, functions=list(functions))
    content: bytes = model.SerializeToString()
    return content


def weight(*shape: int, location: str | None = None) -> Any:
    """Sixteen bytes that claim to be a tensor of a shape, or to lie in another file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=shape)
    if location is None:
        tensor.raw_data = bytes(16)
        return tensor
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def loop() -> bytes:
    """A loop of 2^62 rounds, inside a branch."""
    value, node, tensor = onnx.helper.make_tensor_value_info, onnx.helper.make_node, onnx.helper.make_tensor
    kinds = onnx.TensorProto
    body = onnx.helper.make_graph(
        [node("Identity", ["c"], ["d"])], "b", [value("i", kinds.INT64, []), value("c", kinds.BOOL, [])],
        [value("d", kinds.BOOL, [])],
    )  # fmt: skip
    branch = onnx.helper.make_graph([node("Loop", ["m", "t"], [], body=body)], "c", [], [])
    given = [tensor("m", kinds.INT64, [], [2**62]), tensor("t", kinds.BOOL, [], [True])]
    return graph(node("If", ["t"], [], then_branch=branch, else_branch=branch), weights=given)


def doubling() -> bytes:
    """Functions that each call the next one twice, thirty deep."""
    node = onnx.helper.make_node
    functions = [
        onnx.helper.make_function(
            "f", f"f{i}", ["a"], ["b"],
            [node(f"f{i + 1}", ["a"], [f"{n}"], domain="f") for n in "xy"] + [node("Add", ["x", "y"], ["b"])],
            [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("f", 1)],
        )
        for i in range(30)
    ]  # fmt: skip
    return graph(custom="f", functions=functions)


def constant(tensor: Any) -> bytes:
    return graph(onnx.helper.make_node("Constant", [], ["k"], value=tensor))


def sparse() -> bytes:
    found = onnx.SparseTensorProto(values=weight(1), dims=[1 << 40])
    return graph(onnx.helper.make_node("Constant", [], ["k"], sparse_value=found))


ONNX: dict[str, tuple[Callable[[], bytes], str]] = {
    "weights in an absolute path": (lambda: graph(weights=[weight(4, location="/etc/passwd")]), "another file"),
    "weights above the folder": (lambda: graph(weights=[weight(4, location="../secret")]), "another file"),
    "weights beside the graph": (lambda: graph(weights=[weight(4, location="secret")]), "another file"),
    "weights of a node elsewhere": (lambda: constant(weight(4, location="secret")), "another file"),
    "four terabytes": (lambda: graph(weights=[weight(1 << 40)]), "larger than the file"),
    "four terabytes in a node": (lambda: constant(weight(1 << 20, 1 << 20)), "larger than the file"),
    "a size that overflows": (lambda: graph(weights=[weight(1 << 33, 1 << 33)]), "larger than the file"),
    "a negative size": (lambda: graph(weights=[weight(-4)]), "larger than the file"),
    "a sparse tensor": (sparse, "sparse"),
    "a custom operator": (lambda: graph(onnx.helper.make_node("E", ["input_ids"], ["e"], domain="evil"), custom="evil"),
                          r"custom operator evil\.E"),
    "a loop without end": (loop, "without end"),
    "functions that double": (doubling, "functions"),
    "cut off": (lambda: graph()[:-9], "cut off"),
    "no ONNX file": (lambda: b"\x80\x04\x95" * 99, "ONNX file"),
    "empty": (lambda: b"", "no graph"),
    "an unknown operator": (lambda: graph(onnx.helper.make_node("Nonesuch", ["input_ids"], ["e"])), "Nonesuch"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONNX)
def test_a_hostile_onnx_file_is_refused_within_bounded_memory(tmp_path: Path, kind: str) -> None:
    """Other files, sizes that lie, foreign, endless and exploding operators are an error, from bytes as from a file."""
    make, said = ONNX[kind]
    content = make()
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "model.onnx").write_bytes(content)
    for source in (content, tmp_path / "model.onnx"):
        tracemalloc.start()
        try:
            with pytest.raises(ArtifactError, match=f"ONNX graph is refused: .*{said}"):
                open_graph(source)
            assert tracemalloc.get_traced_memory()[1] < 10 * _MB
        finally:
            tracemalloc.stop()


def test_a_mutated_onnx_file_is_read_or_refused() -> None:
    """Any change of any byte of a sound graph is accepted or a `ValueError`, never another error."""
    content, rng = graph(weights=[weight(4)]), np.random.default_rng(0)
    check_graph(memoryview(content))
    for place in range(len(content)):
        for byte in rng.integers(0, 256, 4).tolist():
            try:
                check_graph(memoryview(content[:place] + bytes([byte]) + content[place + 1 :]))
            except ValueError:
                continue


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The folder of an encoder with two labels, as a fit writes it."""
    made = Encoder()
    made.classes_ = np.array(["a", "b"])
    served = OnnxEncoder(graph(), _TOKENIZER, 8, 0, eight_bits=False)
    made.tuned_ = Tuned(served, temperature=1.0, trained=b"", agreement=())
    save_component(made, tmp_path / "encoder")
    load_component(Encoder, tmp_path / "encoder")
    return tmp_path / "encoder"


def test_a_hostile_graph_of_an_encoder_is_refused(encoder: Path) -> None:
    """A graph that is refused, or gives another number of logits than there are labels, names the version's folder."""
    for content in (loop(), graph(weights=[weight(4, location="/etc/passwd")]), graph(width=3), b"{}"):
        (encoder / "model.onnx").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"encoder: the state of an encoder cannot be read: .*ONNX graph"):
            load_component(Encoder, encoder)


def test_a_hostile_export_is_refused_on_its_first_load(tmp_path: Path) -> None:
    """An export whose own hashes fit, since the same hand wrote them, is refused for its graph or tokenizer."""
    for content, tokenizer, said in (
        (loop(), _TOKENIZER, "without end"),
        (graph(weights=[weight(4, location="secret")]), _TOKENIZER, "another file"),
        (graph(width=3), _TOKENIZER, "into 2 numbers per text"),
    ):
        folder = tmp_path / said
        folder.mkdir()
        (folder / "model.onnx").write_bytes(content)
        (folder / "tokenizer.json").write_text(tokenizer)
        files = {name: pretrained.hash_file(folder / name) for name in ("model.onnx", "tokenizer.json")}
        (folder / "export.json").write_text(json.dumps({"files": files, "max_tokens": 8, "dim": 2, "prompt": ""}))
        with pytest.raises(ArtifactError, match=said):
            _onnx.load(folder, None, alone=True)


def _tree(number: int, **changed: list[int]) -> Callable[[dict[str, Any]], None]:
    def change(model: dict[str, Any]) -> None:
        for name, values in changed.items():
            array = model["learner"]["gradient_booster"]["model"]["trees"][number][name]
            array[: len(values)] = values

    return change


def _all(key: str, value: Any) -> Callable[[Any], None]:
    def change(part: Any) -> None:
        for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            change(each)
        if isinstance(part, dict) and key in part:
            part[key] = value

    return change


TREES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a child far away": (_tree(0, left_children=[1 << 30]), "not the child of one other"),
    "a negative child": (_tree(0, left_children=[-9]), "not the child of one other"),
    "a walk without end": (_tree(0, left_children=[0], right_children=[0]), "not the child of one other"),
    "a parent outside": (_tree(0, parents=[2147483647, -1]), "does not follow its parent"),
    "a feature far away": (_tree(0, split_indices=[1 << 30]), "beyond the 8 of the model"),
    "an array that is too short": (_all("default_left", []), "another length than its"),
    "an array that is too long": (_all("sum_hessian", [1.0] * 5000), "another length than its"),
    "a size that lies": (_all("tree_param", {"num_deleted": "0", "num_feature": "8", "num_nodes": "999999999",
                                              "size_leaf_vector": "1"}), "another length than its"),
    "a tree's number": (_all("id", 3), "tree 0 says that it is tree 3"),
    "trees of other classes": (_all("tree_info", [9] * 6), "belong to other classes"),
    "fewer trees": (_all("num_trees", "5"), "not one of each class"),
    "rounds that lie": (_all("iteration_indptr", [0, 3, 1 << 30]), "do not cover its trees"),
    "more classes": (_all("num_class", "6"), "not one base score for each class|other classes|rounds"),
    "another objective": (_all("objective", {"name": "reg:squarederror"}), "multi:softprob"),
    "another booster": (_all("name", "dart"), "gbtree"),
    "categories": (_all("categories", [1 << 30]), "categories"),
}  # fmt: skip


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """The folder of a fitted xgboost model with three labels and six trees."""
    pytest.importorskip("xgboost")
    inputs, labels = blobs(rows=60)
    save_component(surrogates.build("xgboost", {"rounds": 2}).fit(inputs, labels), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", TREES)
def test_hostile_trees_are_refused_before_xgboost_reads_them(trees: Path, kind: str) -> None:
    """Indices and lengths that would make xgboost read other memory, and end the process, name the folder instead."""
    change, said = TREES[kind]
    model = json.loads((trees / "trees.json").read_text())
    change(model)
    (trees / "trees.json").write_text(json.dumps(model))
    with pytest.raises(ArtifactError, match=rf"(?s)model: the state of an xgboost model cannot be read: .*({said})"):
        load_component(surrogates.get("xgboost"), trees)


def test_trees_of_other_labels_are_refused(trees: Path) -> None:
    """A model with another number of classes than its labels is refused, since it would answer beyond them."""
    state = json.loads((trees / "xgboost.json").read_text())
    (trees / "xgboost.json").write_text(json.dumps(state | {"classes": ["x", "y"]}))
    with pytest.raises(ArtifactError, match="its trees have 3 classes, its labels are 2"):
        load_component(surrogates.get("xgboost"), trees)


def test_checked_trees_predict_as_they_did(trees: Path) -> None:
    """What was checked and passed on gives the same probabilities, bit by bit, before and after another save."""
    inputs, labels = blobs(rows=60)
    fitted = surrogates.build("xgboost", {"rounds": 2}).fit(inputs, labels)
    loaded = load_component(type(fitted), trees)
    np.testing.assert_array_equal(loaded.predict_proba(inputs), fitted.predict_proba(inputs))
    save_component(loaded, trees / "again")
    again = load_component(type(fitted), trees / "again")
    np.testing.assert_array_equal(again.predict_proba(inputs), fitted.predict_proba(inputs))
