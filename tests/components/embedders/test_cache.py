"""The cache of vectors: embeds each text once, survives torn files, never serves a damaged vector."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tracer_serve.components.embedders._cache import CachedEmbedder
from tracer_serve.components.embedders._cache_file import VectorFile
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


def _files(folder: Path) -> tuple[Path, Path]:
    return next(folder.glob("*.keys")), next(folder.glob("*.f32"))


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
    """What a fit may change is not kept."""
    CachedEmbedder(Letters(trainable=True), tmp_path / "cache").embed(TEXTS)
    assert not (tmp_path / "cache").exists()


def test_nothing_asked_is_nothing_written(tmp_path: Path) -> None:
    """An empty call keeps the shape and makes no file."""
    assert CachedEmbedder(Letters(), tmp_path / "cache").embed([]).shape == (0, 5)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("suffix", ["keys", "f32"])
def test_a_file_cut_anywhere_is_repaired(tmp_path: Path, suffix: str) -> None:
    """Whatever length a crash leaves either file at, every vector comes out right, and the files are whole again."""
    reference = CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    whole = [file.read_bytes() for file in _files(tmp_path)]
    for cut in range(len(whole[suffix == "f32"])):
        for file, content in zip(_files(tmp_path), whole, strict=True):
            file.write_bytes(content[:cut] if file.suffix == f".{suffix}" else content)
        np.testing.assert_array_equal(CachedEmbedder(Letters(), tmp_path).embed(TEXTS), reference)
        assert [len(file.read_bytes()) for file in _files(tmp_path)] == [len(content) for content in whole]
        quiet = Letters()
        CachedEmbedder(quiet, tmp_path).embed(TEXTS)
        assert not quiet.asked


def test_a_flipped_bit_is_never_served(tmp_path: Path) -> None:
    """A damaged vector fails its checksum, is embedded anew, and the sound copy is served from then on."""
    reference = CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    _, vectors = _files(tmp_path)
    content = bytearray(vectors.read_bytes())
    content[3] ^= 0x40
    vectors.write_bytes(content)
    inner = Letters()
    np.testing.assert_array_equal(CachedEmbedder(inner, tmp_path).embed(TEXTS), reference)
    assert len(inner.asked) == 1
    quiet = Letters()
    np.testing.assert_array_equal(CachedEmbedder(quiet, tmp_path).embed(TEXTS), reference)
    assert not quiet.asked


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    """A file that is not a cache is named, not overwritten."""
    CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    keys, _ = _files(tmp_path)
    keys.write_bytes(b"something else entirely")
    with pytest.raises(ArtifactError, match="not a cache"):
        CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    assert keys.read_bytes() == b"something else entirely"


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    """An embedder that changes its dimension under one fingerprint does not corrupt the file."""
    CachedEmbedder(Letters(), tmp_path).embed(TEXTS)
    with pytest.raises(ArtifactError, match="length 5, not 3"):
        CachedEmbedder(Letters(dim=3), tmp_path).embed(["new"])
    assert CachedEmbedder(Letters(), tmp_path).embed(TEXTS).shape == (6, 5)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder that cannot be made is told with its path."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        CachedEmbedder(Letters(), tmp_path / "file").embed(TEXTS)


def test_progress_counts_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told in texts that really are embedded, chunk by chunk."""
    monkeypatch.setattr("tracer_serve.components.embedders._cache._CHUNK", 2)
    CachedEmbedder(Letters(), tmp_path).embed(TEXTS[:1])
    told: list[tuple[int, int]] = []
    CachedEmbedder(Letters(), tmp_path, lambda done, total: told.append((done, total))).embed(TEXTS)
    assert told == [(2, 4), (4, 4)]


def test_a_failing_embedder_keeps_the_chunks_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was embedded before a failure is not embedded again."""
    monkeypatch.setattr("tracer_serve.components.embedders._cache._CHUNK", 2)

    class Failing(Letters):
        def embed(self, texts: Sequence[Text]) -> Vectors:
            if len(self.asked) >= 2:
                raise ConnectionError
            return super().embed(texts)

    with pytest.raises(ConnectionError):
        CachedEmbedder(Failing(), tmp_path).embed(TEXTS)
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


def test_lost_rows_are_told(tmp_path: Path) -> None:
    """A row that is not there is an error, never another text's vector."""
    store = VectorFile(tmp_path / "x")
    store.append(np.array([b"k"], "S16"), np.ones((1, 3), np.float32))
    with pytest.raises(ArtifactError, match="lost vectors"):
        store.read(np.array([-1]))
