"""Vectors by key, in two append-only files that a crash at any point leaves whole.

``*.f32`` holds the vectors, ``*.keys`` 20 bytes for each: the key and the crc32 of key and vector. A vector is on the
disk before its key is written, so a crash leaves at most a tail that no whole key points to: readers do not see it, the
next writer cuts it off. A record whose checksum does not fit counts as absent.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tracer_serve.errors import ArtifactError
from tracer_serve.types import Ints, Vectors

_RECORD = np.dtype([("key", "S16"), ("crc", "<u4")])  # 128 bits: two of a billion texts collide with p = 1e-21
_MAGIC = b"tracer-vec1\n"
_HEADER = struct.Struct("<12sI")
_READ = 4096  # rows copied at a time

Keys = np.ndarray[tuple[int], np.dtype[np.bytes_]]


class VectorFile:
    """The two files; any number of processes may read and write them, writers take turns by a file lock.

    Parameters
    ----------
    stem : path without suffix
    """

    def __init__(self, stem: Path) -> None:
        self.keys_file, self.vectors_file = stem.with_suffix(".keys"), stem.with_suffix(".f32")

    def find(self, keys: Keys) -> Ints:
        """Return the row of each key, the newest where there are several, -1 where none is sound."""
        dim, records = self._load()
        found: Ints = np.full(len(keys), -1, np.intp)
        if not len(records):
            return found
        order = np.argsort(records["key"], kind="stable")
        known = records["key"][order]
        last = np.searchsorted(known, keys, side="right") - 1
        hit = np.flatnonzero((last >= 0) & (known[last] == keys))
        vectors = self._map(dim, len(records))
        for i, row in zip(hit.tolist(), order[last[hit]].tolist(), strict=True):
            if _checksum(keys[i], vectors[row]) == records["crc"][row]:
                found[i] = row
        return found

    def read(self, rows: Ints) -> Vectors:
        """Return a copy of these rows, float32, shape (n, d)."""
        dim, records = self._load()
        if rows.min() < 0 or rows.max() >= len(records):
            raise ArtifactError(f"{self.vectors_file} lost vectors while it was read; is something else deleting it?")
        vectors = self._map(dim, len(records))
        out = np.empty((len(rows), dim), np.float32)
        for start in range(0, len(rows), _READ):
            out[start : start + _READ] = vectors[rows[start : start + _READ]]
        return out

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Add n vectors (n, d), durable on return; the vectors reach the disk before their keys."""
        vectors = np.ascontiguousarray(vectors, "<f4")
        records = np.empty(len(keys), _RECORD)
        records["key"] = keys
        records["crc"] = [_checksum(key, vector) for key, vector in zip(keys, vectors, strict=True)]
        with self._writing(vectors.shape[1]) as (key_stream, vector_stream):
            for stream, block in ((vector_stream, vectors), (key_stream, records)):
                stream.write(block.tobytes())
                stream.flush()
                os.fsync(stream.fileno())

    @contextmanager
    def _writing(self, dim: int) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Open both files at the end of the last whole record, alone."""
        try:
            self.keys_file.parent.mkdir(parents=True, exist_ok=True)
            self.keys_file.touch()
        except OSError as error:
            raise ArtifactError(
                f"{self.keys_file.parent} cannot be written: {error.strerror}; check its owner, or move `state`"
            ) from error
        with self.keys_file.open("ab+") as keys, self.vectors_file.open("ab") as vectors:
            fcntl.flock(keys, fcntl.LOCK_EX)
            there, records = self._load()
            if there not in (0, dim):
                raise ArtifactError(f"{self.keys_file} holds vectors of length {there}, not {dim}; delete it")
            if not there:
                keys.truncate(0)
                keys.write(_HEADER.pack(_MAGIC, dim))
            else:
                keys.truncate(_HEADER.size + len(records) * _RECORD.itemsize)
            vectors.truncate(len(records) * dim * 4)
            yield keys, vectors

    def _load(self) -> tuple[int, np.ndarray[Any, Any]]:
        """Return the length of the vectors (0: nothing there yet) and the whole records that have a vector."""
        nothing = np.empty(0, _RECORD)
        try:
            raw = self.keys_file.read_bytes()
            vector_bytes = self.vectors_file.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0, nothing
        if len(raw) < _HEADER.size:
            return 0, nothing
        magic, dim = _HEADER.unpack_from(raw)
        if magic != _MAGIC or not dim:
            raise ArtifactError(f"{self.keys_file} is not a cache of vectors; delete it and its .f32, and refit")
        whole = (len(raw) - _HEADER.size) // _RECORD.itemsize
        return dim, np.frombuffer(raw, _RECORD, min(whole, vector_bytes // (4 * dim)), _HEADER.size)

    def _map(self, dim: int, rows: int) -> Vectors:
        return np.memmap(self.vectors_file, "<f4", "r", shape=(rows, dim))


def _checksum(key: bytes, vector: Vectors) -> int:
    return zlib.crc32(vector.data, zlib.crc32(key.ljust(16, b"\0")))
