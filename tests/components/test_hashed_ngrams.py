from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tracer_serve.components.hashed_ngrams import count_ngrams, learn_vocabulary, weigh

TEXTS = ["I lost my card", "a card, a card!", "", "Überweisung \U0001f4b3 failed?", "x", "\ud800 lone", "a  b\tc"]


def slowly(tokens: list[str]) -> Counter[str]:
    """Count by hand: words and pairs of words, and character windows within framed tokens."""
    grams = Counter(tokens) + Counter(f"{a} {b}" for a, b in pairwise(tokens))
    for token in tokens:
        framed = f" {token} "
        grams.update(f"#{framed[i : i + n]}" for n in (3, 4, 5) for i in range(len(framed) - n + 1))
    return grams


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I lost my card", ["i", "lost", "my", "card"]),
        ("a card, a card!", ["a", "card", ",", "a", "card", "!"]),
        ("", []),
        ("x", ["x"]),
        ("Über\tdie", ["über", "die"]),
    ],
)
def test_counts_are_those_of_a_slow_count(text: str, tokens: list[str]) -> None:
    """As many different n-grams, each as often, as counting strings finds."""
    counts = count_ngrams(["other words", text])
    assert sorted(counts.times[counts.row == 1]) == sorted(slowly(tokens).values())


def test_a_text_hashes_the_same_in_every_batch() -> None:
    """What comes before a text in its batch changes none of its hashes."""
    whole = count_ngrams(TEXTS)
    for i, text in enumerate(TEXTS):
        alone = count_ngrams([text])
        np.testing.assert_array_equal(whole.gram[whole.row == i], alone.gram)
        np.testing.assert_array_equal(whole.times[whole.row == i], alone.times)


def test_chunks_leave_no_trace() -> None:
    """More texts than are hashed at once keep their rows and hashes."""
    counts = count_ngrams(["first", *["filler"] * 5000, "first"])
    np.testing.assert_array_equal(counts.gram[counts.row == 0], counts.gram[counts.row == 5001])


def test_equal_grams_of_different_texts_share_a_hash_and_no_others() -> None:
    """Texts share hashes exactly where they share words or windows."""
    counts = count_ngrams(["card lost", "lost card", "zzz"])
    first, second, third = (set(counts.gram[counts.row == i].tolist()) for i in range(3))
    assert len(first - second) == len(second - first) == 1  # only the pair of words differs
    assert not first & third


def test_the_sides_of_a_pair_are_told_apart() -> None:
    """The same words on the other side of a pair are other features."""
    counts = count_ngrams([("a man sleeps", "nobody runs"), ("nobody runs", "a man sleeps")])
    assert not set(counts.gram[counts.row == 0].tolist()) & set(counts.gram[counts.row == 1].tolist())


def test_tf_idf_is_the_documented_one() -> None:
    """Rows have unit length, a gram of fewer texts weighs more, unknown grams are dropped, empty texts are zero."""
    counts = count_ngrams(TEXTS)
    grams, idf = learn_vocabulary(counts, len(TEXTS), 1, 10_000)
    value, _, starts = weigh(counts, len(TEXTS), grams, idf)
    lengths = [np.linalg.norm(value[i:j]) for i, j in pairwise(starts)]
    np.testing.assert_allclose(lengths, [1, 1, 0, 1, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(idf.max(), np.log((1 + len(TEXTS)) / 2) + 1, rtol=1e-6)
    assert weigh(count_ngrams(["\u5361\u5361\u5361"]), 1, grams, idf).value.size == 0


def test_weights_are_sublinear_tf_times_smoothed_idf() -> None:
    """A word seen twice weighs 1 + ln 2 times its idf, where idf = ln((1 + n) / (1 + df)) + 1."""
    texts = ["aa bb", "aa cc", "bb cc", "aa dd"]
    grams, idf = learn_vocabulary(count_ngrams(texts), 4, 1, 10_000)
    twice, once = (weigh(count_ngrams([text]), 1, grams, idf) for text in ("aa aa bb", "aa bb"))
    # both hold the same grams of "aa" and "bb"; the pair "aa aa" is unknown
    ratios = np.sort((twice.value / once.value).round(5))
    assert len(set(ratios.tolist())) == 2
    assert ratios[-1] / ratios[0] == pytest.approx(1 + np.log(2), rel=1e-4)


def test_the_vocabulary_is_the_common_grams() -> None:
    """Rare grams are left out, at most `most` are kept, and without a common one all are kept."""
    counts = count_ngrams(["one two", "one three", "one two"])
    grams, _ = learn_vocabulary(counts, 3, 2, 10_000)
    everything, _ = learn_vocabulary(counts, 3, 1, 10_000)
    few, _ = learn_vocabulary(counts, 3, 1, 5)
    assert set(few.tolist()) < set(grams.tolist()) < set(everything.tolist())
    assert set(few.tolist()) <= set(count_ngrams(["one"]).gram.tolist())
    lonely = count_ngrams(["abc", "xyz"])
    assert len(learn_vocabulary(lonely, 2, 2, 10_000)[0]) == len(lonely.gram)
    assert len(learn_vocabulary(count_ngrams([""]), 1, 2, 10_000)[0]) == 1
