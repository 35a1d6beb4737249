"""Parameters and result of a fine-tuning."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tracer_serve.components.finetune.onnx_model import OnnxEncoder
from tracer_serve.types import Ints, Labels


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parameters of one fine-tuning, as the surrogate `encoder` documents them.

    Parameters
    ----------
    source : model and revision
    descriptions : description of each label
    """

    source: tuple[str, str | None]
    epochs: int
    warm_epochs: int
    learning_rate: float
    batch_size: int
    max_tokens: int
    frozen_layers: int
    head: Literal["auto", "linear", "prototypes"]
    descriptions: dict[str, str]
    seconds: float
    patience: int
    device: str | None
    precision: Literal["auto", "float32", "bfloat16"]
    backend: Literal["auto", "onnx", "onnx-int8"]
    seed: int

    def fits(self, other: "Recipe") -> bool:
        """Return whether weights of this recipe can warm-start the other."""
        return (self.source, self.head, self.frozen_layers) == (other.source, other.head, other.frozen_layers)


@dataclass(frozen=True, slots=True)
class Earlier:
    """Weights of an earlier fine-tuning, for a warm start.

    Parameters
    ----------
    trained : the tensors that it changed, as safetensors
    classes : the labels of its head's rows, sorted
    """

    trained: bytes
    classes: Labels


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished fine-tuning.

    Parameters
    ----------
    temperature : divides the logits
    trained : the tensors that it changed, as safetensors
    agreement : held-out agreement after each epoch; empty if there were too few rows to hold any out
    held_out : the rows that were held out, shape (h,); not saved
    """

    served: OnnxEncoder
    temperature: float
    trained: bytes
    agreement: tuple[float, ...]
    held_out: Ints = field(default_factory=lambda: np.empty(0, np.int64))
