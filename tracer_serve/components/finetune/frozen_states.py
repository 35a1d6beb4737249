"""Hidden states after the frozen layers: computed once, for every epoch and, within a fit, for every fold."""

from collections.abc import Hashable
from dataclasses import replace

import numpy as np
import torch

from tracer_serve.components.finetune.network import Network
from tracer_serve.components.finetune.shared_states import States, states
from tracer_serve.components.finetune.tokens import Tokens
from tracer_serve.components.finetune.training_plan import Plan
from tracer_serve.components.onnx_graph import like_lengths
from tracer_serve.errors import PluginError
from tracer_serve.types import Ints

_ASKED = 64  # inputs of a batch
_MOST_BYTES = 2**30  # of all states together: 50,000 inputs of 28 tokens at MiniLM's width
_SAME = 0.02  # share of the largest mean vector's entry that rounding may cost
_PROBES = 8


def with_states(network: Network, tokens: Tokens, plan: Plan, model: str) -> Tokens:
    """Return the inputs with what leaves the frozen layers, in half precision, so that these need not run again.

    No label has a part in it, so that folds may share it and the certificate's rows stay unseen (gate.md, section 3).
    Inputs too many for memory come back as they are: training is the same, and slower.

    Parameters
    ----------
    model : names the encoder's weights

    Raises
    ------
    PluginError
        Where the encoder does not say the same when its layers run in two parts.
    """
    if not network.frozen_layers:
        return tokens
    known, kind = states(), (model, network.frozen_layers, plan.half)
    keys: list[Hashable] = [(*kind, *ids, *types) for ids, types in zip(tokens.ids, tokens.types, strict=True)]
    absent = {key: row for row, key in enumerate(keys) if key not in known}
    missing = tokens.take(np.fromiter(absent.values(), np.int64))
    held = sum(value.nbytes for value in known.values())
    if held + 2 * network.width * int(missing.lengths.sum()) > _MOST_BYTES:
        return tokens
    if len(missing):
        _compute(network, missing, plan, known, list(absent))
    kept = replace(tokens, states=[known[key] for key in keys])
    _check(network, kept, plan)
    return kept


def _compute(network: Network, tokens: Tokens, plan: Plan, known: States, keys: list[Hashable]) -> None:
    network.to(plan.device).eval()
    with torch.no_grad(), plan.precision():
        for rows in like_lengths(tokens.lengths, _ASKED):
            found = network.lower(**plan.tensors(tokens, rows)).to("cpu", torch.float16).numpy()
            for row, value in zip(rows, found, strict=True):
                known[keys[row]] = value[: len(tokens.ids[row])].copy()


def _check(network: Network, tokens: Tokens, plan: Plan) -> None:
    rows: Ints = np.arange(min(_PROBES, len(tokens)))
    network.to(plan.device).eval()
    with torch.no_grad(), plan.precision():
        whole, parts = (
            network.pooled(**plan.tensors(one, rows)).float() for one in (replace(tokens, states=None), tokens)
        )
    gap = float((whole - parts).abs().max())
    if not gap <= _SAME * max(1.0, float(whole.abs().max())):
        raise PluginError(
            f"{type(network.body).__name__} says other than before when its layers run in two parts (by {gap:g}):"
            " put `frozen_layers: 0`"
        )
