import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.foreign_texts import foreign_texts
from tests.support.tasks import banking
from tracer_serve.components.ngram_rarity import NgramRarity, cross_rarity

TEXTS, _ = banking(600)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_rarity_is_finite_and_does_not_depend_on_the_batch(texts: list[str]) -> None:
    """Of any text, also an empty one; at most that of n-grams which no text has."""
    rarity = NgramRarity().fit(TEXTS[:20])
    together = rarity.of(texts)
    assert (together <= np.log(20 / 0.3)).all()
    assert np.isfinite(together).all()
    assert together.tolist() == [float(rarity.of([text])[0]) for text in texts]


def test_foreign_texts_are_rarer_than_own_ones() -> None:
    """Other languages in the same script, other scripts, and other languages with English words in them."""
    rarity = NgramRarity().fit(TEXTS[:500])
    own, foreign = rarity.of(TEXTS[500:]), rarity.of(foreign_texts())
    assert (foreign <= np.quantile(own, 0.98)).mean() <= 0.02


def test_case_digits_and_spaces_make_no_difference() -> None:
    """A card number that was never sent is nothing new; the sides of a pair are read as one text."""
    rarity = NgramRarity().fit(["My card 1234 was lost", ("how long", "does it take")])
    same = rarity.of(["My card 1234 was lost", "my  CARD 9876 was\nlost"])
    assert same[0] == same[1]
    assert (
        rarity.of([("How long", "does it take")])[0] == rarity.of(["how long does it take"])[0] < rarity.of(["?!"])[0]
    )


def test_before_a_fit_and_without_a_text_nothing_is_rare() -> None:
    """So that a policy without a range defers nothing for it."""
    assert NgramRarity().of(["anything"]).tolist() == [0.0]
    assert NgramRarity().fit(["a text"]).of(["", " "]).tolist() == [0.0, 0.0]


def test_folds_share_their_counts() -> None:
    """Each text's rarity among the other folds is the one that a count of those folds alone gives."""
    texts, _ = banking(300)
    texts[7] = ""
    fold = np.random.default_rng(0).integers(0, 4, len(texts))
    found = cross_rarity(texts, fold)
    for held_out in range(4):
        others, asked = ([texts[i] for i in np.flatnonzero((fold == held_out) == side)] for side in (False, True))
        np.testing.assert_allclose(found[fold == held_out], NgramRarity().fit(others).of(asked), rtol=0)
