"""Vectors on disk by text, so that a refit embeds only what is new: a file of vectors for each embedder fingerprint.

A text's key is half of its sha256. What a file has lost, or holds with a wrong checksum, is embedded anew.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from tracer_serve.components.embedders._cache_file import Keys, VectorFile
from tracer_serve.infra.parallel import here, spread
from tracer_serve.protocols import Embedder
from tracer_serve.types import Text, Vectors, sides_of

_CHUNK = 4096  # texts between two appends: what a crash loses at most


class CachedEmbedder:
    """Wraps a frozen embedder: a text that was ever embedded in this folder is read back. A trainable one is bypassed.

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


def _key(text: Text) -> bytes:
    parts = [part.encode("utf-8", "surrogatepass") for part in sides_of(text)]
    return hashlib.sha256(b"\xff".join(parts)).digest()[:16]  # 0xff occurs in no UTF-8
