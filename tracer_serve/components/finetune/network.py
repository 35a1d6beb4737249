"""The network that is trained: a pretrained encoder, the mean of its last layer, and a classification head."""

from contextlib import nullcontext
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load, save
from torch.nn import functional
from transformers import AutoModel

from tracer_serve.components import pretrained
from tracer_serve.components.finetune.split_layers import Stack
from tracer_serve.components.neighbour_index import unit
from tracer_serve.errors import ArtifactError
from tracer_serve.types import Labels, Vectors

_SHARPNESS = 16.0  # cosines to logits where the head starts from prototypes
_HEAD = "head"


class Network(torch.nn.Module):
    """Token ids to logits.

    The head is linear, or, where it starts from prototypes, a scaled cosine to one direction per class: before the
    first step the network then is the nearest-class-mean rule of the frozen encoder, which fine-tuning only improves
    on (Zhai and Wu, 2019, "Classification is a strong baseline for deep metric learning").

    Parameters
    ----------
    folder : a Hugging Face encoder with safetensors weights
    classes : sorted labels, shape (k,)
    frozen_layers : how many of the lowest layers stay as they are, without dropout; the token embeddings always do
    cosine : whether the head starts from prototypes
    """

    def __init__(self, folder: Path, classes: Labels, *, frozen_layers: int, cosine: bool) -> None:
        super().__init__()
        pretrained.quiet()
        self.body = AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
        self.classes, self.cosine = classes, cosine
        self.width = int(self.body.config.hidden_size)
        self.head = torch.nn.Linear(self.width, len(classes))
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)
        self.drop = torch.nn.Dropout(0.1)
        self.sees_sides = int(getattr(self.body.config, "type_vocab_size", 0)) > 1
        self.pad = int(getattr(self.body.config, "pad_token_id", None) or 0)
        depth = int(self.body.config.num_hidden_layers)
        self.frozen_layers = min(frozen_layers, depth)
        self.stack = Stack(self.body, depth, self.frozen_layers)
        self.frozen = self._freeze()

    def train(self, mode: bool = True) -> Self:  # torch's signature
        """Train or not; the frozen layers never drop anything out, so that what leaves them may be kept."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def lower(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what leaves the frozen layers, shape (n, tokens, width)."""
        return self.stack.below(lambda: self._body(input_ids, attention_mask, token_type_ids))

    def pooled(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean over the tokens, shape (n, width); `hidden` is what `lower` returned, where that is known."""
        with nullcontext() if hidden is None else self.stack.above(hidden.float()):
            last = self._body(input_ids, attention_mask, token_type_ids)
        mask = attention_mask.unsqueeze(-1).to(last.dtype)
        mean: torch.Tensor = (last * mask).sum(1).float() / mask.sum(1).float()
        return mean

    def _body(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        sides = {"token_type_ids": token_type_ids} if self.sees_sides and token_type_ids is not None else {}
        found: torch.Tensor = self.body(input_ids=input_ids, attention_mask=attention_mask, **sides).last_hidden_state
        return found

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits, shape (n, k)."""
        pooled = self.drop(self.pooled(input_ids, attention_mask, token_type_ids, hidden))
        if not self.cosine:
            return functional.linear(pooled, self.head.weight, self.head.bias)
        directions = functional.normalize(self.head.weight, dim=1)
        return _SHARPNESS * functional.linear(functional.normalize(pooled, dim=1), directions, self.head.bias)

    def start_from(self, pooled: Vectors, codes: np.ndarray) -> None:
        """Set each class's direction to the mean of its rows: vectors (n, width), class indices (n,)."""
        sums = np.zeros((len(self.classes), self.width), np.float32)
        np.add.at(sums, codes, unit(pooled))
        with torch.no_grad():
            self.head.weight.copy_(functional.normalize(torch.from_numpy(sums), dim=1))

    def trained(self) -> bytes:
        """Return what training changes, as safetensors in half precision; the classes are the head's rows."""
        kept = {name: value for name, value in self.named_parameters() if value.requires_grad}
        half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in kept.items()}
        return save(half, {"classes": "\n".join(self.classes.tolist())})

    def resume(self, content: bytes, classes: Labels) -> None:
        """Take over what an earlier training left; of the head, the rows of the classes that both know.

        Raises
        ------
        ArtifactError
            Where it came from another kind of model.
        """
        own = dict(self.named_parameters())
        known = np.isin(self.classes, classes)
        rows = np.searchsorted(classes, self.classes[known])
        with torch.no_grad():
            for name, value in load(content).items():
                if name not in own or own[name].shape[1:] != value.shape[1:]:
                    raise ArtifactError(f"the earlier encoder's {name!r} does not fit the model: fit without it")
                if name.startswith(_HEAD):
                    own[name][torch.from_numpy(known)] = value[torch.from_numpy(rows)].to(own[name])
                else:
                    own[name].copy_(value)

    def _freeze(self) -> list[torch.nn.Module]:
        """Freeze embeddings and lowest layers; return those whose output may be kept."""
        embeddings = [self.body.get_input_embeddings(), getattr(self.body, "embeddings", None)]
        lowest = [*embeddings, *self.stack.lower]
        frozen = [part for part in lowest if isinstance(part, torch.nn.Module)]
        for part in frozen:
            part.requires_grad_(requires_grad=False)
        pooler = getattr(self.body, "pooler", None)  # its output is not used
        if isinstance(pooler, torch.nn.Module):
            pooler.requires_grad_(requires_grad=False)
        return frozen if self.frozen_layers else []
