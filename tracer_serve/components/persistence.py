"""Save and load components without pickle: arrays as npz, plain values as JSON.

A fitted component keeps its state in plain attributes: numpy arrays, numbers, strings, lists and dicts of those. A
component that needs more defines ``save`` and ``load`` (`tracer_serve.protocols.Persistent`).
"""

import json
import math
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from tracer_serve.errors import ArtifactError, PluginError, TracerServeError
from tracer_serve.protocols import Persistent


def save_component(component: object, folder: Path) -> None:
    """Write a component's state into a new folder.

    Raises
    ------
    PluginError
        If an attribute is neither an array nor plain JSON, and the class has no ``save``.
    """
    folder.mkdir(parents=True)
    if isinstance(component, Persistent):
        component.save(folder)
        return
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain: dict[str, Any] = {}
    for name, value in vars(component).items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            arrays[name] = value
        elif _is_plain(value):
            plain[name] = value
        else:
            raise PluginError(
                f"{type(component).__name__}.{name} is a {type(value).__name__}: keep fitted state in numpy arrays and"
                " plain values, or give the class its own save(folder) and load(folder)"
            )
    np.savez(folder / "state.npz", allow_pickle=False, **arrays)
    (folder / "state.json").write_text(json.dumps(plain), encoding="utf-8")


def load_component(cls: type, folder: Path) -> Any:
    """Load what `save_component` wrote, as an instance of `cls`.

    Raises
    ------
    ArtifactError
        If a file is missing or cannot be read; nothing in it is executed, and no array is larger than its file.
    """
    try:
        if issubclass(cls, Persistent):
            return cls.load(folder)
        component = object.__new__(cls)
        component.__dict__.update(json.loads((folder / "state.json").read_text(encoding="utf-8")))
        component.__dict__.update(_read_arrays(folder / "state.npz"))
    except TracerServeError:
        raise
    except Exception as error:  # a damaged or hostile file can make libraries raise any exception
        problem = str(error) or type(error).__name__
        raise ArtifactError(f"{folder}: the state of {cls.__name__} cannot be read: {problem}") from error
    return component


def _read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read an npz that `save_component` wrote; compressed files are refused, because they may be decompression bombs.

    Raises
    ------
    ValueError
        If an array is compressed, or claims more bytes than the file has.
    """
    # opened here, because numpy leaves the file open if it is not an npz
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        size = path.stat().st_size
        for part in arrays.zip.infolist():
            if part.compress_type != ZIP_STORED or part.file_size > size or _claimed(arrays.zip, part) > size:
                raise ValueError(f"{part.filename} in {path.name} is compressed, or claims more bytes than it has")
        return {name: arrays[name] for name in arrays.files}


def _claimed(archive: ZipFile, part: ZipInfo) -> int:
    """Return how many bytes an array has by its header."""
    with archive.open(part) as stream:
        if npy.read_magic(stream) == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(stream)
        else:
            shape, _, dtype = npy.read_array_header_2_0(stream)
    return math.prod(shape) * dtype.itemsize


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str)
