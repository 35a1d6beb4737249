"""Pairs of texts as vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tracer_serve.components.embedders._cache import CachedEmbedder
from tracer_serve.components.embedders._pairs import LEXICAL, PairEmbedder
from tracer_serve.components.embedders.ngrams import NGrams
from tracer_serve.components.hashed_ngrams import count_ngrams
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, PluginError
from tracer_serve.types import Text, Vectors

PAIRS: list[Text] = [
    ("A man is playing a guitar", "A man is playing an instrument"),
    ("A man is playing a guitar", "Nobody is playing a guitar"),
    ("A dog runs", "A dog doesn't run"),
    ("", "A dog runs"),
]


class Halves:
    """Frozen: one-hot by whether the text is long."""

    trainable = False
    fingerprint = "halves"

    def fit(self, texts: Sequence[Text]) -> Self:  # noqa: ARG002
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        return np.array([[len(text) < 6, len(text) >= 6] for text in texts], np.float32).reshape(-1, 2)


def test_vector_is_made_of_the_stated_parts() -> None:
    """The vector is u, v, |u - v|, u * v, cosine and the lexical features, in this order."""
    vector = PairEmbedder(Halves()).embed([("short", "long enough")])[0]
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector[:9], [1, 0, 0, 1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(vector[9:], [0, 0, 0, 0, 0, 0, 0.5])
    assert len(vector) == 9 + LEXICAL


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a b c", "A B d e", [2 / 5, 2 / 3, 2 / 4, 0, 0, 0, 3 / 4]),
        ("he is not here", "he is here", [3 / 4, 3 / 4, 1, 1 / 3, 0, 1, 3 / 4]),
        ("he isn't here", "he isn\u2019t here", [2 / 4, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 1]),
        ("no no no no", "", [0, 0, 0, 1, 0, 1, 0]),
        ("", "", [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_lexical_features(left: str, right: str, expected: list[float]) -> None:
    """Overlap, containment either way, negations either way, mismatch and length ratio are as counted by hand."""
    np.testing.assert_allclose(PairEmbedder(Halves()).embed([(left, right)])[0, -LEXICAL:], expected, rtol=1e-6)


def test_order_of_the_pair_matters_only_where_it_should() -> None:
    """Swapping the sides swaps u and v, and leaves difference, product and cosine."""
    model = PairEmbedder(NGrams(dim=4)).fit(PAIRS)
    there, back = model.embed([PAIRS[0], PAIRS[0][::-1]])
    d = (len(there) - 1 - LEXICAL) // 4
    np.testing.assert_array_equal(there[:d], back[d : 2 * d])
    np.testing.assert_array_equal(there[2 * d : 4 * d + 1], back[2 * d : 4 * d + 1])


def test_trainable_inner_sees_both_sides_and_round_trips(tmp_path: Path) -> None:
    """Fitted state comes back from disk with the same vectors and fingerprint."""
    model = PairEmbedder(NGrams(dim=4)).fit(PAIRS)
    assert model.trainable
    assert isinstance(model.inner, NGrams)
    assert set(count_ngrams(["playing guitar"]).gram.tolist()) & set(model.inner.grams.tolist())
    save_component(model, tmp_path / "pair")
    again = load_component(PairEmbedder, tmp_path / "pair")
    assert again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(again.embed(PAIRS), model.embed(PAIRS))


def test_frozen_inner_is_cached_by_side(tmp_path: Path) -> None:
    """With a cache below, a text that occurs in many pairs is embedded once."""
    asked: list[Text] = []

    class Counting(Halves):
        def embed(self, texts: Sequence[Text]) -> Vectors:
            asked.extend(texts)
            return super().embed(texts)

    model = PairEmbedder(CachedEmbedder(Counting(), tmp_path))
    np.testing.assert_array_equal(model.embed(PAIRS), PairEmbedder(Halves()).embed(PAIRS))
    assert len(asked) == len({side for pair in PAIRS for side in pair})
    assert not model.trainable


def test_fingerprint_differs_from_the_inner_one() -> None:
    """Vectors of pairs are never mistaken for vectors of single texts."""
    assert PairEmbedder(Halves()).fingerprint != Halves.fingerprint
    assert Halves.fingerprint in PairEmbedder(Halves()).fingerprint


@pytest.mark.parametrize("wrong", ["a text", ("one",), ("a", "b", "c")])
def test_what_is_not_a_pair_is_refused(wrong: Text) -> None:
    """A single text on a task of pairs gets an error that shows the right shape."""
    with pytest.raises(BadInputError, match="two texts"):
        PairEmbedder(Halves()).embed([wrong])


def test_no_pairs_give_no_rows() -> None:
    """An empty batch keeps the width."""
    assert PairEmbedder(Halves()).embed([]).shape == (0, 16)


def test_unregistered_inner_cannot_be_written(tmp_path: Path) -> None:
    """What could not be found again is refused at saving, not at loading."""
    with pytest.raises(PluginError, match="not registered"):
        save_component(PairEmbedder(Halves()), tmp_path / "pair")
    assert embedders.name_of(NGrams) == "ngrams"
