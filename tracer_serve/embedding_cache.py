"""Vectors on disk by text, so that a refit embeds only what is new.

Two append-only files for each embedder fingerprint. ``*.f32`` holds the vectors, ``*.keys`` 20 bytes for each: half
of the text's sha256 and the crc32 of key and vector. A vector is on the disk before its key is written, so a crash
leaves at most a tail that no whole key points to: readers do not see it, the next writer cuts it off. A record whose
checksum does not fit counts as absent and is embedded anew.
"""

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from tracer_serve.compute import here, spread
from tracer_serve.errors import ArtifactError
from tracer_serve.protocols import Embedder
from tracer_serve.records import Ints, Text, Vectors

_RECORD = np.dtype([("key", "S16"), ("crc", "<u4")])  # 128 bits: two of a billion texts collide with p = 1e-21
_MAGIC = b"tracer-vec1\n"
_HEADER = struct.Struct("<12sI")
_CHUNK = 4096  # texts between two appends: what a crash loses at most

Keys = np.ndarray[tuple[int], np.dtype[np.bytes_]]


class CachedEmbedder:
    """Wraps a frozen embedder: a text that was ever embedded in this folder is read back. A trainable one is bypassed.

    Any number of processes may read and write at the same time; writers take turns by a file lock.

    Parameters
    ----------
    embedder : the embedder to spare
    folder : where the files live; made when needed
    progress : called with (embedded, to embed), in texts, after each chunk
    """

    def __init__(self, embedder: Embedder, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
        self.embedder, self.trainable = embedder, embedder.trainable
        self.folder, self.progress = folder, progress

    @property
    def fingerprint(self) -> str:
        """As the embedder's: its vectors are the same."""
        return self.embedder.fingerprint

    @property
    def uncached(self) -> Embedder:
        """The embedder, for whoever wants to know what it costs."""
        return self.embedder

    def fit(self, texts: Sequence[Text]) -> Self:
        """Fit the embedder; a frozen one stays as it is."""
        self.embedder.fit(texts)
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return the vectors, shape (n, d), each distinct text embedded at most once and never twice.

        Raises
        ------
        ArtifactError
            Where a file in the folder is not a cache, or holds vectors of another length.
        """
        if self.trainable or not texts:
            return self.embedder.embed(texts)
        name = hashlib.sha256(self.embedder.fingerprint.encode()).hexdigest()[:32]
        store = VectorFile(self.folder / name)
        keys: Keys = np.fromiter((_key(text) for text in texts), "S16", len(texts))
        distinct, first, place = np.unique(keys, return_index=True, return_inverse=True)
        rows = store.find(distinct)
        missing = np.flatnonzero(rows < 0)
        parts, done = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)], 0
        jobs = [(number, [texts[i] for i in first[part].tolist()]) for number, part in enumerate(parts)]
        # an endpoint does its own work: no worker would be faster, nor needs its key
        run = here if getattr(self.embedder, "remote", False) else spread
        for number, vectors in run(_embed, self.embedder, jobs):
            store.append(distinct[parts[number]], vectors)
            done += len(vectors)
            if self.progress is not None:
                self.progress(done, len(missing))
        return store.read((store.find(distinct) if len(missing) else rows)[place])


def _embed(embedder: Embedder, job: tuple[int, list[Text]]) -> tuple[int, Vectors]:
    """Embed one chunk, wherever `spread` lets it; the chunks are the same everywhere, and so are the vectors."""
    number, texts = job
    return number, embedder.embed(texts)


class VectorFile:
    """The two files of one fingerprint.

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
        for start in range(0, len(rows), _CHUNK):
            out[start : start + _CHUNK] = vectors[rows[start : start + _CHUNK]]
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


def _key(text: Text) -> bytes:
    parts = [part.encode("utf-8", "surrogatepass") for part in ((text,) if isinstance(text, str) else text)]
    return hashlib.sha256(b"\xff".join(parts)).digest()[:16]  # 0xff occurs in no UTF-8


def _checksum(key: bytes, vector: Vectors) -> int:
    return zlib.crc32(vector.data, zlib.crc32(key.ljust(16, b"\0")))
