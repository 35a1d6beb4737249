"""Folds: random, and duplicates never part."""

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.fit.folds import burst_groups, duplicate_groups, holdout, lasting_holdout, random_folds, row_hashes

TEXTS = st.lists(st.text("ab ?!", max_size=6), min_size=1, max_size=40)


@given(TEXTS)
def test_duplicates_share_a_fold(texts: list[str]) -> None:
    """Texts of one group are always in one fold, whatever they are."""
    groups, folds = duplicate_groups(texts), random_folds(texts, 3, seed=1)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1


@given(TEXTS, st.integers(0, 5))
def test_a_holdout_never_splits_duplicates(texts: list[str], seed: int) -> None:
    """Held-out rows have no duplicate among the others."""
    groups, out = duplicate_groups(texts), holdout(texts, 0.5, seed)
    assert not set(groups[out]) & set(groups[~out])


@given(TEXTS)
def test_bursts_hold_whole_groups_of_duplicates(texts: list[str]) -> None:
    """Whatever the texts: duplicates are in one burst, and without digits bursts are nothing else."""
    groups, found = duplicate_groups(texts), burst_groups(texts)
    assert found.tolist() == groups.tolist()


def test_templates_are_one_burst_where_they_follow_each_other() -> None:
    """Other numbers make no other message within a run; apart they do, and where numbers are all there is."""
    sent = ["your code is 7711", "Your code is 9Z02!", "close my account", "your code is 5", "9 1", "9 2"]
    assert burst_groups(sent).tolist() == [0, 0, 1, 2, 3, 4]
    again = ["your code is 7711", "close it", "your code is 7711", "your code is 3"]
    assert burst_groups(again).tolist() == [0, 1, 0, 0]
    assert burst_groups([]).tolist() == []


def test_near_duplicates_are_found() -> None:
    """Case, order, repetition and punctuation do not make another text; another word does."""
    texts = ["Where is my card?", "my card... WHERE is", "where is is my card", "where is my pin", "?!", "?!", "!!"]
    groups = duplicate_groups(texts)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] != groups[0]
    assert groups[4] == groups[5] != groups[6]


def test_one_text_in_two_encodings_is_one() -> None:
    """Composed or not, wide or not: clients differ in that. Marks are a part of the word, and of an emoji no word."""
    composed, apart = (unicodedata.normalize(form, "Où est ma carte fermée?") for form in ("NFC", "NFD"))
    assert duplicate_groups([composed, apart, "CARD lost", "\uff23\uff21\uff32\uff24 lost"]).tolist() == [0, 0, 1, 1]
    assert duplicate_groups(["मेरा कार्ड", "मेरी कार्ड", "मेरा, कार्ड"]).tolist() == [0, 1, 0]
    assert duplicate_groups(["\u2764\ufe0f", "\u2600\ufe0f"]).tolist() == [0, 1]


def test_half_a_surrogate_pair_has_a_hash() -> None:
    """A text that no UTF-8 can hold is a text like others."""
    assert len(set(row_hashes(["\udcff", "\udcfe!", "a"]).tolist())) == 3


def test_pairs_are_grouped_by_both_sides() -> None:
    """A pair is another pair where its sides are swapped."""
    assert duplicate_groups([("a", "b"), ("A!", "b"), ("b", "a")]).tolist() == [0, 0, 1]


def test_folds_are_about_equal_and_depend_on_the_seed() -> None:
    """100 distinct texts make five folds of 20, dealt anew by another seed."""
    texts = [f"text {i}" for i in range(100)]
    first, second = random_folds(texts, 5, 0), random_folds(texts, 5, 1)
    assert np.bincount(first).tolist() == [20] * 5
    assert (first != second).any()


def test_what_is_held_out_lastingly_stays_so() -> None:
    """As texts come, none changes sides; about a fifth is held out, another one by another seed."""
    texts = [f"text {chr(97 + i % 26)} {chr(97 + i // 26 % 26)} {i}" for i in range(5000)]
    early, late = lasting_holdout(texts[:2000], 0.2, 0), lasting_holdout(texts, 0.2, 0)
    assert (early == late[:2000]).all()
    assert abs(late.mean() - 0.2) < 0.03
    assert (lasting_holdout(texts, 0.2, 1) != late).mean() > 0.2


@given(TEXTS)
def test_a_lasting_holdout_never_splits_duplicates(texts: list[str]) -> None:
    """Held-out rows have no duplicate among the others, and duplicates have one hash."""
    groups, out = duplicate_groups(texts), lasting_holdout(texts, 0.5, 0)
    assert not set(groups[out]) & set(groups[~out])
    assert len(np.unique(row_hashes(texts))) == groups.max() + 1
