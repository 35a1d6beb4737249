"""The trained network: a pretrained encoder, mean pooling over its last layer, and a classification head."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load, save
from torch.nn import functional
from transformers import AutoModel

from tracer_serve.components import pretrained
from tracer_serve.components.neighbour_index import unit
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.types import Labels, Vectors

_SHARPNESS = 16.0  # cosines to logits where the head starts from prototypes
_HEAD = "head"


class Network(torch.nn.Module):
    """Token ids to logits.

    The head is linear or, with `cosine`, a scaled cosine to one direction per class. A cosine head starts as the
    nearest-class-mean rule of the frozen encoder, and fine-tuning improves on it (Zhai and Wu, 2019, "Classification is
    a strong baseline for deep metric learning").

    Parameters
    ----------
    folder : a Hugging Face encoder with safetensors weights
    classes : sorted labels, shape (k,)
    frozen_layers : number of lowest layers that are not trained and have no dropout; token embeddings never are trained
    cosine : use a cosine head that starts from the class means
    """

    def __init__(self, folder: Path, classes: Labels, *, frozen_layers: int, cosine: bool) -> None:
        super().__init__()
        pretrained.quiet()
        with pretrained.reading(folder):
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
        self.frozen = self._freeze(depth)

    def train(self, mode: bool = True) -> Self:  # torch's signature
        """Set training mode; the frozen layers stay in evaluation mode, without dropout."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def pooled(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean over the tokens of the last layer, shape (n, width)."""
        sides = {"token_type_ids": token_type_ids} if self.sees_sides and token_type_ids is not None else {}
        last = self.body(input_ids=input_ids, attention_mask=attention_mask, **sides).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(last.dtype)
        mean: torch.Tensor = (last * mask).sum(1).float() / mask.sum(1).float()
        return mean

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, shape (n, k)."""
        pooled = self.drop(self.pooled(input_ids, attention_mask, token_type_ids))
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
        """Load the tensors of an earlier training; of its head, the rows of the classes that both have.

        Raises
        ------
        ArtifactError
            If the tensors cannot be read, or come from another kind of model.
        """
        try:
            tensors = load(content)
        except Exception as error:  # damaged or hostile content makes safetensors raise anything
            raise ArtifactError(f"the earlier encoder's tensors cannot be read ({error}): fit without it") from error
        own = dict(self.named_parameters())
        known = np.isin(self.classes, classes)
        rows = np.searchsorted(classes, self.classes[known])
        with torch.no_grad():
            for name, value in tensors.items():
                if name not in own or own[name].shape[1:] != value.shape[1:]:
                    raise ArtifactError(f"the earlier encoder's {name!r} does not fit the model: fit without it")
                if name.startswith(_HEAD):
                    own[name][torch.from_numpy(known)] = value[torch.from_numpy(rows)].to(own[name])
                else:
                    own[name].copy_(value)

    def _freeze(self, depth: int) -> list[torch.nn.Module]:
        """Freeze the embeddings and the lowest layers; return those that run without dropout.

        Raises
        ------
        PluginError
            If layers shall be frozen and the encoder has no list of them, as in models whose layers share weights.
        """
        lists = [part for part in self.body.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == depth]
        if self.frozen_layers and not lists:
            raise PluginError(f"{type(self.body).__name__} has no list of {depth} layers: set `frozen_layers: 0`")
        embeddings = [self.body.get_input_embeddings(), getattr(self.body, "embeddings", None)]
        lowest = [*embeddings, *(lists[0][: self.frozen_layers] if self.frozen_layers else [])]
        frozen = [part for part in lowest if isinstance(part, torch.nn.Module)]
        for part in frozen:
            part.requires_grad_(requires_grad=False)
        pooler = getattr(self.body, "pooler", None)  # its output is not used
        if isinstance(pooler, torch.nn.Module):
            pooler.requires_grad_(requires_grad=False)
        return frozen if self.frozen_layers else []
