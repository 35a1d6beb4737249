"""Texts as tokens, and batches of them."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.components.finetune.models import tiny_bert
from tracer_serve.components.finetune.tokens import Tokens, tokenize
from tracer_serve.components.onnx_graph import like_lengths
from tracer_serve.types import Text


def test_half_a_surrogate_pair_is_read(tmp_path: Path) -> None:
    """A cut emoji is an unknown sign, in a text and in a pair."""
    tokenizer = (tiny_bert(tmp_path / "bert") / "tokenizer.json").read_text(encoding="utf-8")
    texts: list[Text] = ["cut \ud83d", ("cut \ud83d", "\udcff")]
    assert [len(tokenize(tokenizer, [text], 16)) for text in texts] == [1, 1]


def test_a_pair_is_one_sequence_with_two_sides(tmp_path: Path) -> None:
    """A pair contains both sides, each token has its side, and the longer side is truncated first."""
    tokenizer = (tiny_bert(tmp_path / "bert") / "tokenizer.json").read_text(encoding="utf-8")
    whole = tokenize(tokenizer, [("card was lost", "top up")], 128)
    assert whole.types == [[0, 0, 0, 0, 0, 1, 1, 1]]
    cut = tokenize(tokenizer, [("card was lost " * 20, "top up")], 9)
    assert len(cut.ids[0]) == 9
    assert cut.types[0].count(1) == 3
    assert cut.ids[0][-3:] == whole.ids[0][-3:]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80), st.integers(1, 9), st.integers(0, 3))
def test_every_row_is_in_one_batch(lengths: list[int], size: int, seed: int) -> None:
    """Of like lengths as well as shuffled, an epoch is each row once, in batches no larger than asked."""
    tokens = Tokens([[1] * n for n in lengths], [[0] * n for n in lengths])
    rng = np.random.default_rng(seed)
    for batches in (list(like_lengths(tokens.lengths, size)), tokens.shuffled(size, rng)):
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert max(map(len, batches)) <= size


def test_a_batch_is_padded_and_masked() -> None:
    """What fills a row up has the padding's id and no attention."""
    batch = Tokens([[5, 6, 7], [8]], [[0, 0, 1], [0]], pad=9).batch(np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[8, 9, 9], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
