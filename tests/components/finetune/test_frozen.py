"""Hidden states of frozen layers are kept, and change nothing."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DebertaV2Config, DebertaV2Model

from tests.components.finetune.models import tiny_bert
from tests.components.surrogates.worlds import blobs
from tracer_serve.components.finetune import frozen_states as frozen
from tracer_serve.components.finetune.frozen_states import with_states
from tracer_serve.components.finetune.network import Network
from tracer_serve.components.finetune.shared_states import sharing
from tracer_serve.components.finetune.tokens import Tokens, tokenize
from tracer_serve.components.finetune.train import logits_of, pooled_of, train
from tracer_serve.components.finetune.training_plan import Plan
from tracer_serve.errors import PluginError
from tracer_serve.types import Vectors

PLAN = Plan(epochs=3, rate=3e-3, batch=16, seconds=60.0, patience=3, seed=0, device="cpu", half=False)
TEXTS, LABELS = blobs(rows=100)
CLASSES, CODES = np.unique(LABELS, return_inverse=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers."""
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert", layers=3)


@pytest.fixture
def tokens(folder: Path) -> Tokens:
    """Inputs of unlike lengths."""
    texts = [f"{text} {'card was lost ' * (i % 5)}" for i, text in enumerate(TEXTS.texts)]
    return tokenize((folder / "tokenizer.json").read_text(encoding="utf-8"), texts, 128)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network(folder: Path, frozen_layers: int = 2) -> Network:
    torch.manual_seed(0)
    return Network(folder, CLASSES, frozen_layers=frozen_layers, cosine=True)


def trained(folder: Path, tokens: Tokens) -> Vectors:
    """Train from the same start on these inputs, and return what the network then says of all of them."""
    model = network(folder)
    train(model, tokens, CODES, PLAN, None)
    return logits_of(model, replace(tokens, states=None), PLAN)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_upper_layers_say_of_kept_states_what_the_whole_says(folder: Path, tokens: Tokens, layers: int) -> None:
    """Within the rounding of half precision, whatever a row is padded with, and however many layers are frozen."""
    model = network(folder, layers)
    kept = with_states(model, tokens, PLAN, "bert")
    assert kept.states is not None
    whole, parts = (pooled_of(model, one, PLAN) for one in (tokens, kept))
    np.testing.assert_allclose(parts, whole, atol=3e-3)
    assert np.ptp(whole, axis=0).min() > 0.1


def test_training_on_kept_states_is_the_same_training(folder: Path, tokens: Tokens) -> None:
    """Dropout included, which the frozen part has none of: the same steps, to the same network."""
    kept = with_states(network(folder), tokens, PLAN, "bert")
    with_kept, without = trained(folder, kept), trained(folder, tokens)
    untrained = logits_of(network(folder), tokens, PLAN)
    assert np.abs(without - untrained).max() > 1.0
    np.testing.assert_allclose(with_kept, without, atol=0.1)


@pytest.mark.parametrize(("shared", "computed"), [(True, 100), (False, 130)])
def test_folds_share_what_leaves_the_frozen_layers(
    folder: Path, tokens: Tokens, shared: bool, computed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within `sharing` each input is computed once, whichever folds it is in; outside, once per training."""
    rows: list[int] = []
    lower = Network.lower

    def counted(self: Network, input_ids: torch.Tensor, *rest: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        rows.append(len(input_ids))
        return lower(self, input_ids, *rest, **more)

    monkeypatch.setattr(Network, "lower", counted)
    folds = [np.arange(0, 70), np.arange(40, 100)]
    with sharing() if shared else nullcontext():
        for fold in folds:
            with_states(network(folder), tokens.take(fold), PLAN, "bert")
    texts = len({(*ids,) for ids in tokens.ids})
    repeated = 100 - texts
    assert computed - 2 * repeated <= sum(rows) <= computed


def test_layers_that_return_more_than_states_are_cut_as_well(tmp_path: Path, tokens: Tokens) -> None:
    """A DeBERTa, by a network that itself has computed none of the states."""
    config = DebertaV2Config(
        vocab_size=80,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
    )
    DebertaV2Model(config).save_pretrained(tmp_path)
    with sharing():
        with_states(network(tmp_path), tokens, PLAN, "deberta")
        model = network(tmp_path)
        kept = with_states(model, tokens, PLAN, "deberta")
    whole, parts = (pooled_of(model, one, PLAN) for one in (tokens, kept))
    np.testing.assert_allclose(parts, whole, atol=3e-3)
    assert np.ptp(whole, axis=0).min() > 0.1


def test_what_memory_cannot_hold_is_computed_anew(
    folder: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound nothing is kept; nor is anything where no layer is frozen."""
    assert with_states(network(folder, 0), tokens, PLAN, "bert") is tokens
    monkeypatch.setattr(frozen, "_MOST_BYTES", 1000)
    assert with_states(network(folder), tokens, PLAN, "bert") is tokens


def test_a_model_that_cannot_be_cut_is_refused(folder: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two parts together say other than the whole, training does not go on."""
    monkeypatch.setattr(Network, "lower", lambda self, input_ids, **_: torch.zeros(*input_ids.shape, self.width))
    with pytest.raises(PluginError, match="frozen_layers: 0"):
        with_states(network(folder), tokens, PLAN, "bert")
