"""Hyperparameters, device and precision of one training."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from tracer_serve.components.finetune.tokens import Tokens
from tracer_serve.types import Ints


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of one training.

    Parameters
    ----------
    epochs : maximum number of passes over the rows
    rate : peak learning rate
    batch : rows per step
    seconds : wall time at which the decay ends
    patience : epochs without improvement after which training stops
    seed : of the order of the rows and of dropout
    device : torch device
    half : whether the encoder multiplies in bfloat16
    """

    epochs: int
    rate: float
    batch: int
    seconds: float
    patience: int
    seed: int
    device: str
    half: bool

    def precision(self) -> AbstractContextManager[object]:
        """Return the autocast context of the chosen precision."""
        if not self.half:
            return nullcontext()
        return torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16)

    def tensors(self, tokens: Tokens, rows: Ints) -> dict[str, torch.Tensor]:
        """Return a batch on the device: the rows given by index."""
        return {name: torch.from_numpy(value).to(self.device) for name, value in tokens.batch(rows).items()}


def bfloat16_pays(device: str) -> bool:
    """Return whether the device multiplies bfloat16 faster than float32."""
    if not device.startswith("cpu"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("amx_tile"))
