import pickle
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.errors import ArtifactError, PluginError


class Plain:
    """A component with state of every kind that is kept."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


class OwnFormat:
    """A component that writes itself."""

    def __init__(self, word: str) -> None:
        self.word = word

    def save(self, folder: Path) -> None:
        (folder / "word.txt").write_text(self.word, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls((folder / "word.txt").read_text(encoding="utf-8"))


def test_arrays_and_plain_values_come_back(tmp_path: Path) -> None:
    """Arrays keep type, shape and values; numbers, strings, lists, dicts, booleans and None are what they were."""
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "labels": np.array(["é", ""]),
        "none": np.empty((0, 2)),
    }
    plain = {"n": 3, "x": 0.1, "inf": float("inf"), "word": "ü\n", "deep": {"list": [1, None, [True]]}, "off": None}
    save_component(Plain(**arrays, **plain), tmp_path / "plain")
    found = vars(load_component(Plain, tmp_path / "plain"))
    assert {name: found[name] for name in plain} == plain
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_loading_does_not_call_init(tmp_path: Path) -> None:
    """Loading restores the state without calling `__init__`, which may have required parameters."""

    class Strict:
        def __init__(self, required: int) -> None:
            self.required = required

    save_component(Strict(3), tmp_path / "strict")
    assert load_component(Strict, tmp_path / "strict").required == 3


@pytest.mark.parametrize("value", [np.tanh, {1: "x"}, np.array([None]), {"deep": [object()]}])
def test_what_would_need_pickle_is_refused(tmp_path: Path, value: object) -> None:
    """Functions, objects, object arrays and keys that are not strings are refused, naming the attribute."""
    with pytest.raises(PluginError, match=r"Plain\.odd is a .*: keep fitted state in numpy arrays"):
        save_component(Plain(odd=value), tmp_path / "odd")


def test_a_component_may_write_itself(tmp_path: Path) -> None:
    """`save` and `load` of the class take the place of npz and JSON."""
    save_component(OwnFormat("hello"), tmp_path / "own")
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["word.txt"]
    assert load_component(OwnFormat, tmp_path / "own").word == "hello"


def test_an_existing_folder_is_never_written_into(tmp_path: Path) -> None:
    """A version's files are written once."""
    with pytest.raises(FileExistsError):
        save_component(Plain(), tmp_path)


def test_a_pickle_in_the_arrays_is_never_executed(tmp_path: Path) -> None:
    """An npz that holds an object array is refused, and what it would run does not run."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    save_component(Plain(a=np.zeros(2)), tmp_path / "plain")
    np.savez(tmp_path / "plain" / "state.npz", a=np.array([Bomb()], dtype=object))
    with pytest.raises(ArtifactError, match="the state of Plain cannot be read"):
        load_component(Plain, tmp_path / "plain")
    (tmp_path / "plain" / "state.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ArtifactError):
        load_component(Plain, tmp_path / "plain")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [("state.json", b"{"), ("state.json", b"\xff"), ("state.npz", b""), ("state.npz", b"PK\x03\x04")],
)
def test_a_damaged_file_is_an_artifact_error(tmp_path: Path, file: str, content: bytes) -> None:
    """Cut off or overwritten files are refused with the folder's name."""
    save_component(Plain(a=np.zeros(2)), tmp_path / "plain")
    (tmp_path / "plain" / file).write_bytes(content)
    with pytest.raises(ArtifactError, match="plain: the state of Plain cannot be read"):
        load_component(Plain, tmp_path / "plain")


@pytest.mark.parametrize("file", ["state.json", "state.npz"])
def test_a_missing_file_is_an_artifact_error(tmp_path: Path, file: str) -> None:
    """So are missing ones."""
    save_component(Plain(a=np.zeros(2)), tmp_path / "plain")
    (tmp_path / "plain" / file).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_component(Plain, tmp_path / "plain")
