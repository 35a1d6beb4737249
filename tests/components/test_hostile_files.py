"""Files of a version that somebody else wrote: refused by name; no code runs, memory is bounded."""

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.errors import ArtifactError

_MB = 1_000_000
Write = Callable[[Path], Any]


class Plain:
    """A component with one array."""

    def __init__(self) -> None:
        self.weights = np.zeros(2)


def _npy(shape: str, dtype: str = "<f8", data: bytes = b"") -> bytes:
    """Return an array file whose header claims a shape, whatever its data are."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def _zip(content: bytes, method: int = zipfile.ZIP_STORED, name: str = "weights.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _zeros(mb: int) -> bytes:
    return _npy(f"({mb * _MB // 8},)", data=bytes(mb * _MB))


class Bomb:
    """Touches a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


NPZ: dict[str, Callable[[], bytes]] = {
    "deflate bomb": lambda: _zip(_zeros(40), zipfile.ZIP_DEFLATED),
    "bzip2 bomb": lambda: _zip(_zeros(40), zipfile.ZIP_BZIP2),
    "lzma bomb": lambda: _zip(_zeros(40), zipfile.ZIP_LZMA),
    "a terabyte in the header": lambda: _zip(_npy(f"({1 << 37},)")),
    "an exabyte in the header": lambda: _zip(_npy(f"({1 << 57},)")),
    "more dimensions than numpy has": lambda: _zip(_npy("(" + "1," * 200 + ")")),
    "a negative shape": lambda: _zip(_npy("(-1,)")),
    "a size that lies": lambda: _zip(_zeros(1)).replace((_MB + 128).to_bytes(4, "little"), b"\xff\xff\xff\x7f"),
    "encrypted": lambda: _zip(_zeros(1)).replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    "code in the header": lambda: _zip(_npy("__import__('os').abort()")),
    "an unknown method": lambda: _zip(_zeros(1)).replace(b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x63\x00"),
    "no npz": lambda: _npy("(2,)", data=bytes(16)),
}


@pytest.mark.parametrize("kind", NPZ)
def test_a_hostile_npz_is_refused_within_bounded_memory(tmp_path: Path, kind: str) -> None:
    """Bombs, claims of terabytes and lies about sizes are an error that names the folder, within a few MB."""
    save_component(Plain(), tmp_path / "plain")
    (tmp_path / "plain" / "state.npz").write_bytes(NPZ[kind]())
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=r"plain: the state of Plain cannot be read: ."):
            load_component(Plain, tmp_path / "plain")
        assert tracemalloc.get_traced_memory()[1] < 10 * _MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["state.npz", "state.json"])
def test_a_pickle_in_the_place_of_a_state_is_not_executed(tmp_path: Path, name: str) -> None:
    """A pickle under the name of any file, also inside an npz, is refused; what it would run does not run."""
    save_component(Plain(), tmp_path / "plain")
    for content in (pickle.dumps(Bomb(tmp_path / "exploded")), _zip(pickle.dumps(Bomb(tmp_path / "exploded")))):
        (tmp_path / "plain" / name).write_bytes(content)
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_component(Plain, tmp_path / "plain")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[1]", b"3", b'{"a": NaN', b"\xff\xfe", b'"' + b"x" * 99])
def test_a_hostile_state_is_refused(tmp_path: Path, content: bytes) -> None:
    """JSON that is nested without end, or is no object, is an error that names the folder."""
    save_component(Plain(), tmp_path / "plain")
    (tmp_path / "plain" / "state.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="plain: the state of Plain cannot be read"):
        load_component(Plain, tmp_path / "plain")
