"""Fine-tune a pretrained encoder on the traces, for distinctions that frozen embeddings miss."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from tracer_serve.components import pretrained
from tracer_serve.components.finetune.onnx_model import OnnxEncoder
from tracer_serve.components.finetune.recipe import Earlier, Recipe, Tuned
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.types import Bools, Inputs, Ints, Labels, Text, Vectors

_STATE, _GRAPH, _TOKENIZER = "encoder.json", "model.onnx", "tokenizer.json"
_TRAINED, _SEEN = "trained.safetensors", "seen.npy"


@surrogates.register("encoder")
class Encoder:
    """Fine-tune a Hugging Face encoder with a classification head; a pair is one sequence (cross-encoder).

    It reads texts, not vectors. A tenth of the rows is held out for early stopping, for the temperature, and for the
    choice between 8 and 32 bits. Predictions, in the fit as in serving, come from the exported ONNX graph without
    torch. See docs/encoder.md.

    Parameters
    ----------
    model : name on the Hugging Face hub, or a folder; None: the model of the task's embedder, else MiniLM
    folder : a model's folder, relative to the YAML; used instead of `model`
    revision : commit or tag on the hub
    epochs : maximum number of passes over the rows
    warm_epochs : the same for a warm start from the last version's weights (`gate.mode: strict`)
    learning_rate : peak rate, reached after a tenth of training, then falling to 0
    batch_size : rows per step
    max_tokens : tokens of an input that are read
    frozen_layers : number of lowest layers that are not trained, which makes a training step cheaper
    head : ``prototypes``: initialised with the class means of the frozen encoder, for few traces; ``linear``: random
        initialisation; ``auto``: linear for pairs, prototypes for single texts
    descriptions : description of each label, used as one more trace of it; set from the task's `labels`
    seconds : limit of one training in wall time; the comparison trains once per fold
    patience : epochs without improvement after which training stops
    device : torch device; None: a GPU if there is one
    precision : ``auto``: bfloat16 if the processor multiplies it natively
    backend : ``onnx``, ``onnx-int8``, or ``auto``: 8 bits if the held-out rows show no loss
    seed : seed of rows, head and dropout; the same seed on the same machine gives the same model
    source : default model and revision; set from the task's embedder
    """

    cost = 100.0  # CPU of a fit in units of logreg's: cheap candidates are compared first
    resumes = True

    def __init__(
        self,
        *,
        model: str | None = None,
        folder: Path | None = None,
        revision: str | None = None,
        epochs: Annotated[int, Field(ge=1, le=100)] = 6,
        warm_epochs: Annotated[int, Field(ge=1, le=100)] = 2,
        learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 1e-4,
        batch_size: Annotated[int, Field(ge=1, le=1024)] = 32,
        max_tokens: Annotated[int, Field(ge=8, le=8192)] = 128,
        frozen_layers: Annotated[int, Field(ge=0)] = 0,
        head: Literal["auto", "linear", "prototypes"] = "auto",
        descriptions: dict[str, str] | None = None,
        seconds: Annotated[float, Field(gt=0)] = 1200.0,
        patience: Annotated[int, Field(ge=1)] = 2,
        device: str | None = None,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        backend: Literal["auto", "onnx", "onnx-int8"] = "auto",
        seed: Annotated[int, Field(ge=0)] = 0,
        source: tuple[str, str | None] = (pretrained.MINILM, None),
    ) -> None:
        named = str(folder) if folder is not None else model
        self.recipe = Recipe(
            source=source if named is None else (named, revision),
            epochs=epochs,
            warm_epochs=warm_epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_tokens=max_tokens,
            frozen_layers=frozen_layers,
            head=head,
            descriptions=descriptions or {},
            seconds=seconds,
            patience=patience,
            device=device,
            precision=precision,
            backend=backend,
            seed=seed,
        )
        self.classes_: Labels = np.empty(0, np.str_)
        self.tuned_: Tuned | None = None
        self.earlier: Earlier | None = None
        self.seen_: Ints = np.empty(0, np.uint64)

    @property
    def held_out_(self) -> Ints:
        """Return the rows of the last fit that were held out of training, shape (h,)."""
        return np.empty(0, np.int64) if self.tuned_ is None else self.tuned_.held_out

    def resume(self, folder: Path | None, seen: Ints, apart: Ints) -> None:
        """Warm-start from the encoder in `folder` if its recipe is compatible and it saw no row of the certificate."""
        self.seen_, self.earlier = seen, None
        before = None if folder is None else type(self).load(folder)
        if before is None or before.tuned_ is None or not before.recipe.fits(self.recipe):
            return
        if len(before.seen_) and not np.isin(apart, before.seen_).any():
            self.earlier = Earlier(before.tuned_.trained, before.classes_)
            self.seen_ = np.union1d(seen, before.seen_)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Fine-tune on the texts of n rows, starting from `earlier` if that is set."""
        self.classes_, codes = encode(labels)
        self.tuned_ = None  # with a single class nothing is trained
        if len(self.classes_) > 1:
            try:
                from tracer_serve.components.finetune.fine_tune import fine_tune  # noqa: PLC0415  # imports torch
            except ModuleNotFoundError as error:
                raise PluginError(
                    f"fine-tuning needs the package {error.name!r}. Try:"
                    " pip install '.[encoder]' in a checkout of tracer-serve"
                ) from error
            self.tuned_ = fine_tune(self.recipe, inputs.texts, self.classes_, codes, self.earlier)
        self.earlier = None
        return self

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        if self.tuned_ is None or not len(inputs):
            return np.ones((len(inputs), len(self.classes_)), np.float32)
        served = self.tuned_.served
        return softmax(served.logits(served.tokens(inputs.texts), len(self.classes_)) / self.tuned_.temperature)

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts have more tokens than `max_tokens`."""
        return np.zeros(len(texts), bool) if self.tuned_ is None else self.tuned_.served.truncates(texts)

    def save(self, folder: Path) -> None:
        """Write graph, tokenizer, the trained tensors as safetensors, and the rest as JSON."""
        state: dict[str, Any] = {"recipe": asdict(self.recipe), "classes": self.classes_.tolist(), "tuned": None}
        if self.tuned_ is not None:
            tuned, served = self.tuned_, self.tuned_.served
            (folder / _GRAPH).write_bytes(served.graph)
            (folder / _TOKENIZER).write_text(served.tokenizer, encoding="utf-8")
            (folder / _TRAINED).write_bytes(tuned.trained)
            facts = {"max_tokens": served.max_tokens, "pad": served.pad, "eight_bits": served.eight_bits}
            np.save(folder / _SEEN, self.seen_, allow_pickle=False)
            state["tuned"] = facts | {"temperature": tuned.temperature, "agreement": tuned.agreement}
        (folder / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load what `save` wrote; needs neither torch nor the pretrained weights."""
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            recipe, tuned = state["recipe"], state["tuned"]
            encoder = cls()
            encoder.recipe = Recipe(**{**recipe, "source": tuple(recipe["source"])})
            encoder.classes_ = np.array(state["classes"], np.str_)
            if tuned is not None:
                encoder.seen_ = np.load(folder / _SEEN, allow_pickle=False)
                encoder.tuned_ = Tuned(
                    served=OnnxEncoder(
                        graph=(folder / _GRAPH).read_bytes(),
                        tokenizer=(folder / _TOKENIZER).read_text(encoding="utf-8"),
                        max_tokens=tuned["max_tokens"],
                        pad=tuned["pad"],
                        eight_bits=tuned["eight_bits"],
                    ),
                    temperature=tuned["temperature"],
                    trained=(folder / _TRAINED).read_bytes(),
                    agreement=tuple(tuned["agreement"]),
                )
                encoder.tuned_.served.open(len(encoder.classes_))  # now, so that the first request does not wait for it
        except (ArtifactError, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise ArtifactError(f"{folder}: the state of an encoder cannot be read: {error}") from error
        return encoder
