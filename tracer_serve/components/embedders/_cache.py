"""Embedding cache on disk, so that a refit embeds only new texts: one SQLite file per embedder fingerprint.

A text's key is half of its sha256. Each vector carries a crc32; a damaged one is embedded again.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from tracer_serve.components.truncation import truncated
from tracer_serve.errors import ArtifactError
from tracer_serve.infra.parallel import here, spread
from tracer_serve.infra.private_files import make_private_folder
from tracer_serve.protocols import Embedder
from tracer_serve.types import Bools, Text, Vectors, sides_of

_CHUNK = 4096  # texts per transaction: what a crash loses at most
_ASKED = 500  # keys per query; SQLite allows 999 parameters in old builds
_LOCK_S = 60.0


class CachedEmbedder:
    """Cache the vectors of a frozen embedder in a folder, so that no text is embedded twice.

    A trainable embedder is called directly: its next fit may change its vectors.

    Parameters
    ----------
    embedder : the embedder to wrap
    folder : holds the cache files; created when needed
    progress : called with (embedded, to embed), in texts, after each chunk
    chunk : texts embedded between two writes
    """

    def __init__(
        self,
        embedder: Embedder,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
        chunk: int = _CHUNK,
    ) -> None:
        self.embedder, self.trainable = embedder, embedder.trainable
        self.folder, self.progress, self.chunk = folder, progress, chunk

    @property
    def fingerprint(self) -> str:
        """Return the wrapped embedder's fingerprint: the vectors are the same."""
        return self.embedder.fingerprint

    @property
    def uncached(self) -> Embedder:
        """Return the wrapped embedder, for measuring what embedding costs."""
        return self.embedder

    def fit(self, texts: Sequence[Text]) -> Self:
        """Fit the embedder; a frozen one does not change."""
        self.embedder.fit(texts)
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return the vectors, float32, shape (n, d); a distinct text is embedded at most once.

        Raises
        ------
        ArtifactError
            If the cache file is damaged, cannot be written, or holds vectors of another length.
        """
        if self.trainable or not texts:
            return self.embedder.embed(texts)
        keys = [_key(text) for text in texts]
        distinct = dict(zip(reversed(keys), reversed(texts), strict=True))
        row = {key: i for i, key in enumerate(distinct)}
        with self._database() as database:
            out = np.empty((len(distinct), _width(database)), np.float32)
            absent = dict(row)
            for key, vector in _read(database, list(distinct)):
                out[absent.pop(key)] = vector
            for part, vectors in self._embed_chunks(list(absent), distinct):
                if not out.shape[1]:
                    out = np.empty((len(distinct), vectors.shape[1]), np.float32)
                if vectors.shape[1] != out.shape[1]:
                    raise ArtifactError(
                        f"{self.file} holds vectors of length {out.shape[1]}, not {vectors.shape[1]}; delete it"
                    )
                _write(database, part, vectors)
                out[[row[key] for key in part]] = vectors
        return out[[row[key] for key in keys]]

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts the embedder reads only in part."""
        return truncated(self.embedder, texts)

    @property
    def file(self) -> Path:
        """Return the cache file of this embedder's fingerprint."""
        return self.folder / f"{hashlib.sha256(self.fingerprint.encode()).hexdigest()[:32]}.sqlite"

    def _embed_chunks(self, keys: list[bytes], texts: dict[bytes, Text]) -> Iterator[tuple[list[bytes], Vectors]]:
        parts = [keys[start : start + self.chunk] for start in range(0, len(keys), self.chunk)]
        jobs = [(number, [texts[key] for key in part]) for number, part in enumerate(parts)]
        # the endpoint does the work: other processes would not be faster, and would need its key
        run = here if getattr(self.embedder, "remote", False) else spread
        done = 0
        for number, vectors in run(_embed, self.embedder, jobs):
            yield parts[number], np.asarray(vectors, "<f4")
            done += len(vectors)
            if self.progress is not None:
                self.progress(done, len(keys))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            make_private_folder(self.folder)
        except OSError as error:
            raise ArtifactError(f"{self.folder} cannot be written: {error.strerror}; check its owner") from error
        try:
            with closing(sqlite3.connect(self.file, timeout=_LOCK_S)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, crc INTEGER, vector BLOB)")
                yield database
        except sqlite3.OperationalError as error:
            raise ArtifactError(
                f"{self.file} cannot be written: {error}; check free space and the folder's owner, or move `state`"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{self.file} is not a cache of vectors ({error}); delete it and refit") from error


def _width(database: sqlite3.Connection) -> int:
    """Return the length of the vectors, 0 if there are none yet."""
    found = database.execute("SELECT length(vector) / 4 FROM vectors LIMIT 1").fetchone()
    return int(found[0]) if found else 0


def _read(database: sqlite3.Connection, keys: list[bytes]) -> Iterator[tuple[bytes, Vectors]]:
    """Yield the undamaged vectors of the keys."""
    for start in range(0, len(keys), _ASKED):
        part = keys[start : start + _ASKED]
        query = f"SELECT key, crc, vector FROM vectors WHERE key IN ({','.join('?' * len(part))})"  # noqa: S608
        for key, crc, vector in database.execute(query, part):
            if _checksum(key, vector) == crc:
                yield key, np.frombuffer(vector, "<f4")


def _write(database: sqlite3.Connection, keys: Sequence[bytes], vectors: Vectors) -> None:
    """Add vectors in one transaction, durable on return."""
    contents = [vector.tobytes() for vector in vectors]
    rows = [(key, _checksum(key, content), content) for key, content in zip(keys, contents, strict=True)]
    with database:
        database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)


def _embed(embedder: Embedder, job: tuple[int, list[Text]]) -> tuple[int, Vectors]:
    """Embed one chunk; chunks do not depend on the process that runs them, so neither do the vectors."""
    number, texts = job
    return number, embedder.embed(texts)


def _key(text: Text) -> bytes:
    parts = [part.encode("utf-8", "surrogatepass") for part in sides_of(text)]
    return hashlib.sha256(b"\xff".join(parts)).digest()[:16]  # 0xff occurs in no UTF-8


def _checksum(key: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key))
