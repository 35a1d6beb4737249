"""Train with AdamW, warm-up, decay and a time budget; keep the epoch with the best held-out agreement."""

import copy
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from tracer_serve.components.finetune.network import Network
from tracer_serve.components.finetune.tokens import Tokens
from tracer_serve.components.finetune.training_plan import Plan
from tracer_serve.components.onnx_graph import like_lengths
from tracer_serve.types import Floats, Ints, Vectors

_WARM_UP = 0.1
_HEAD_RATE = 5.0  # the head is not pretrained, so it learns faster than the encoder
_DECAY = 0.01
_LARGEST_STEP = 1.0
_PRIOR_ROWS = 10
_ASKED = 64  # inputs of a batch without gradients


def train(network: Network, tokens: Tokens, codes: Ints, plan: Plan, held: tuple[Tokens, Ints] | None) -> list[float]:
    """Train in place, and return the held-out agreement after each epoch.

    The learning rate follows the steps or the clock, whichever is further along. Unless the time budget ends training,
    the same seed gives the same network.

    Parameters
    ----------
    codes : class index per row, shape (n,)
    held : held-out rows that select the best epoch; None keeps the last one
    """
    rng, began = np.random.default_rng(plan.seed), time.monotonic()
    network.to(plan.device)
    body = [value for value in network.body.parameters() if value.requires_grad]
    groups = [
        {"params": body, "lr": plan.rate},
        {"params": network.head.parameters(), "lr": _HEAD_RATE * plan.rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=_DECAY, fused=True)
    total = plan.epochs * -(-len(tokens) // plan.batch)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _height(step / total, (time.monotonic() - began) / plan.seconds)
    )
    agreement: list[float] = []
    best = copy.deepcopy(network.state_dict()) if held else {}
    for _ in range(plan.epochs):
        network.train()
        for rows in tokens.shuffled(plan.batch, rng):
            if time.monotonic() - began > plan.seconds:
                break
            with plan.precision():
                logits = network(**plan.tensors(tokens, rows))
            loss = cross_entropy(logits.float(), torch.from_numpy(codes[rows]).to(plan.device))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(body, _LARGEST_STEP)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if held:
            agreement.append(float((logits_of(network, held[0], plan).argmax(axis=1) == held[1]).mean()))
            if agreement[-1] >= max(agreement):
                best = copy.deepcopy(network.state_dict())
            if int(np.argmax(agreement[::-1])) >= plan.patience:
                break
        if time.monotonic() - began > plan.seconds:
            break
    if held:
        network.load_state_dict(best)
    network.eval()
    return agreement


def logits_of(network: Network, tokens: Tokens, plan: Plan) -> Vectors:
    """Return the logits of n inputs, float32, shape (n, k)."""
    return _ask(network, tokens, plan, len(network.classes), pooled=False)


def pooled_of(network: Network, tokens: Tokens, plan: Plan) -> Vectors:
    """Return the encoder's mean vector of n inputs, float32, shape (n, width)."""
    return _ask(network, tokens, plan, network.width, pooled=True)


def _ask(network: Network, tokens: Tokens, plan: Plan, width: int, *, pooled: bool) -> Vectors:
    network.to(plan.device).eval()
    out = np.empty((len(tokens), width), np.float32)
    with torch.no_grad(), plan.precision():
        for rows in like_lengths(tokens.lengths, _ASKED):
            batch = plan.tensors(tokens, rows)
            found = network.pooled(**batch) if pooled else network(**batch)
            out[rows] = found.float().cpu().numpy()
    return out


def _height(steps: float, clock: float) -> float:
    """Return the fraction of the peak learning rate at these fractions of the steps and of the time."""
    return max(0.0, min((steps + 1e-3) / _WARM_UP, (1.0 - max(steps, clock)) / (1.0 - _WARM_UP)))


def temperature_of(logits: Floats, codes: Ints) -> float:
    """Return the temperature that minimises the log loss of logits (n, k) (Guo et al., 2017).

    A ridge of ten rows pulls its logarithm towards 0: without a disagreement the optimum would be unbounded.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415  # needed by the fit only

    rows = np.arange(len(codes))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float(
            (np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, codes]).sum() + _PRIOR_ROWS * log_temperature**2 / 2
        )

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded").x))
