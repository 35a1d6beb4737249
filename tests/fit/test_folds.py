"""Folds are random and never divide a group."""

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.fit.folds import lasting_holdout, newest_holdout, random_folds
from tracer_serve.fit.groups import duplicate_groups, groups_of, row_hashes

TEXTS = st.lists(st.text("ab ?!", max_size=6), min_size=1, max_size=40)


@given(TEXTS)
def test_groups_share_a_fold(texts: list[str]) -> None:
    """Texts of one group are always in one fold, and duplicates in one group, whatever they are."""
    same, groups = duplicate_groups(texts), groups_of(texts)
    folds = random_folds(groups, 3, seed=1)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    for duplicates in np.unique(same):
        assert len(np.unique(groups[same == duplicates])) == 1


@given(TEXTS, st.integers(0, 5))
def test_a_holdout_never_splits_a_group(texts: list[str], seed: int) -> None:
    """Held-out rows have no row of their group among the others."""
    groups = groups_of(texts)
    out = newest_holdout(groups, np.ones(len(groups), bool), 0.5, seed, np.arange(len(groups)))
    assert not set(groups[out]) & set(groups[~out])
    assert not out.any() or groups[out].min() > groups[~out].max()  # groups are numbered as they appear


def test_texts_of_one_template_are_one_group() -> None:
    """Other names and numbers make no other message, unless they are nearly all there is."""
    sent = ["your code is 7711", "Your code is 9Z02!", "close my account", "your code is 5", "9 1", "9 2"]
    assert groups_of(sent).tolist() == [0, 0, 1, 0, 2, 3]
    named = ["hi this is Ann, my parcel to Rome is late", "close it", "hi this is Bob, my parcel to Riga is late"]
    assert groups_of(named).tolist() == [0, 1, 0]
    assert groups_of([]).tolist() == []


def test_groups_that_the_caller_names_are_taken_as_they_are() -> None:
    """One text of two conversations is in two groups; rows without a name are grouped by their text."""
    texts, named = ["yes", "yes", "no thanks", "no, thanks!", "no thanks"], ["a", "b", "", "", "a"]
    assert groups_of(texts, named).tolist() == [0, 1, 2, 2, 0]


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
    """100 groups make five folds of 20, dealt differently by another seed."""
    first, second = random_folds(np.arange(100), 5, 0), random_folds(np.arange(100), 5, 1)
    assert np.bincount(first).tolist() == [20] * 5
    assert (first != second).any()


def test_what_is_held_out_lastingly_stays_so() -> None:
    """As texts come, none changes sides; about a fifth is held out, another one by another seed."""
    texts = [f"text {i}" for i in range(5000)]
    groups = groups_of(texts)
    early, late = lasting_holdout(texts[:2000], groups[:2000], 0.2, 0), lasting_holdout(texts, groups, 0.2, 0)
    assert (early == late[:2000]).all()
    assert abs(late.mean() - 0.2) < 0.03
    assert (lasting_holdout(texts, groups, 0.2, 1) != late).mean() > 0.2


@given(TEXTS)
def test_a_lasting_holdout_never_splits_a_group(texts: list[str]) -> None:
    """Held-out rows have no row of their group among the others, and duplicates have one hash."""
    groups = groups_of(texts)
    out = lasting_holdout(texts, groups, 0.5, 0)
    assert not set(groups[out]) & set(groups[~out])
    assert len(np.unique(row_hashes(texts))) == duplicate_groups(texts).max() + 1
