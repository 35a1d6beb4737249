"""The cache of vectors: embeds each text once, survives kills, never serves a damaged vector."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tracer_serve.components.embedders._cache import CachedEmbedder
from tracer_serve.errors import ArtifactError
from tracer_serve.types import Text, Vectors


class Letters:
    """Frozen and deterministic: counts letters, and remembers what it was asked."""

    def __init__(self, dim: int = 5, name: str = "letters", *, trainable: bool = False) -> None:
        self.dim, self.fingerprint, self.trainable = dim, name, trainable
        self.asked: list[Text] = []

    def fit(self, texts: Sequence[Text]) -> Self:  # noqa: ARG002
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        self.asked += texts
        rows = [[len(text), *(str(text).count(letter) for letter in "abcdefghijk")][: self.dim] for text in texts]
        return np.array(rows, np.float32).reshape(-1, self.dim)


TEXTS = ["abba", "cab", "", "déjà vu \ud800", "abba", "dad"]


def test_each_distinct_text_is_embedded_once_ever(tmp_path: Path) -> None:
    """Repeats inside a call, later calls and later processes read back instead of embedding."""
    inner = Letters()
    first = CachedEmbedder(inner, tmp_path).embed(TEXTS)
    assert sorted(map(str, inner.asked)) == sorted(set(TEXTS))
    np.testing.assert_array_equal(first, Letters().embed(TEXTS))

    later = Letters()
    again = CachedEmbedder(later, tmp_path).embed([*TEXTS[::-1], "new"])
    assert later.asked == ["new"]
    np.testing.assert_array_equal(again[:-1], first[::-1])


def test_pairs_are_kept_apart_from_texts(tmp_path: Path) -> None:
    """A pair, the swapped pair and the joined text are three different inputs."""
    inner = Letters()
    CachedEmbedder(inner, tmp_path).embed([("a", "b"), ("b", "a"), "ab"])
    assert len(inner.asked) == 3


def test_another_fingerprint_shares_nothing(tmp_path: Path) -> None:
    """Vectors of one embedder are never served for another."""
    CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    other = Letters(dim=3, name="other")
    assert CachedEmbedder(other, tmp_path).embed(TEXTS).shape == (6, 3)
    assert len(other.asked) == 5


def test_trainable_embedder_is_bypassed(tmp_path: Path) -> None:
    """Vectors that a fit may change are not stored."""
    CachedEmbedder(Letters(trainable=True), tmp_path / "cache").embed(TEXTS)
    assert not (tmp_path / "cache").exists()


def test_nothing_asked_is_nothing_written(tmp_path: Path) -> None:
    """An empty call keeps the shape and makes no file."""
    assert CachedEmbedder(Letters(), tmp_path / "cache").embed([]).shape == (0, 5)
    assert not (tmp_path / "cache").exists()


def _embed_and_die(folder: Path) -> None:
    class Killed(Letters):
        def embed(self, texts: Sequence[Text]) -> Vectors:
            if len(self.asked) >= 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().embed(texts)

    CachedEmbedder(Killed(), folder, chunk=2).embed(TEXTS)


def test_a_killed_process_loses_at_most_its_last_chunk(tmp_path: Path) -> None:
    """What was written before a kill is read back, the rest is embedded."""
    writer = multiprocessing.get_context("spawn").Process(target=_embed_and_die, args=(tmp_path,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    inner = Letters()
    np.testing.assert_array_equal(CachedEmbedder(inner, tmp_path).embed(TEXTS), Letters().embed(TEXTS))
    assert len(inner.asked) == 1


def test_a_flipped_bit_is_never_served(tmp_path: Path) -> None:
    """A damaged vector fails its checksum, is embedded again, and the sound copy is served from then on."""
    cached = CachedEmbedder(Letters(), tmp_path)
    reference = cached.embed(TEXTS)
    content = bytearray(cached.file.read_bytes())
    vector = reference[1].tobytes()
    content[content.index(vector) + 3] ^= 0x40
    cached.file.write_bytes(content)
    inner = Letters()
    np.testing.assert_array_equal(CachedEmbedder(inner, tmp_path).embed(TEXTS), reference)
    assert inner.asked == [TEXTS[1]]
    quiet = Letters()
    np.testing.assert_array_equal(CachedEmbedder(quiet, tmp_path).embed(TEXTS), reference)
    assert not quiet.asked


@pytest.mark.parametrize("content", [b"something else entirely", b"SQLite format 3\x00" + bytes(9000)])
def test_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is not a cache is named, not overwritten."""
    cached = CachedEmbedder(Letters(), tmp_path)
    cached.file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not a cache.*delete it"):
        cached.embed(TEXTS)
    assert cached.file.read_bytes() == content


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    """An embedder that changes its dimension under one fingerprint does not corrupt the file."""
    CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    with pytest.raises(ArtifactError, match="length 5, not 3"):
        CachedEmbedder(Letters(dim=3), tmp_path).embed(["new"])
    assert CachedEmbedder(Letters(), tmp_path).embed(TEXTS).shape == (6, 5)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder that cannot be created is named."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        CachedEmbedder(Letters(), tmp_path / "file").embed(TEXTS)


def test_progress_counts_what_is_new(tmp_path: Path) -> None:
    """Progress counts the texts that are embedded, chunk by chunk."""
    CachedEmbedder(Letters(), tmp_path).embed(TEXTS[:1])
    seen: list[tuple[int, int]] = []
    CachedEmbedder(Letters(), tmp_path, lambda done, total: seen.append((done, total)), chunk=2).embed(TEXTS)
    assert seen == [(2, 4), (4, 4)]


def test_a_failing_embedder_keeps_the_chunks_before(tmp_path: Path) -> None:
    """What was embedded before a failure is not embedded again."""

    class Failing(Letters):
        def embed(self, texts: Sequence[Text]) -> Vectors:
            if len(self.asked) >= 2:
                raise ConnectionError
            return super().embed(texts)

    with pytest.raises(ConnectionError):
        CachedEmbedder(Failing(), tmp_path, chunk=2).embed(TEXTS)
    rest = Letters()
    CachedEmbedder(rest, tmp_path).embed(TEXTS)
    assert len(rest.asked) == 3


def _fill(folder: Path, start: int) -> None:
    cached = CachedEmbedder(Letters(), folder)
    for i in range(start, start + 40):
        cached.embed([f"text {i}"])


def test_two_writers_take_turns(tmp_path: Path) -> None:
    """Processes that append at the same time lose nothing and mix nothing up."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    inner, texts = Letters(), [f"text {i}" for i in range(80)]
    np.testing.assert_array_equal(CachedEmbedder(inner, tmp_path).embed(texts), Letters().embed(texts))
    assert not inner.asked
