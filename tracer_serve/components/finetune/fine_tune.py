"""Fine-tune from texts to an exported graph. Imports torch."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tracer_serve.components import pretrained
from tracer_serve.components.finetune.export import eight_bits, export
from tracer_serve.components.finetune.network import Network
from tracer_serve.components.finetune.onnx_model import OnnxEncoder
from tracer_serve.components.finetune.recipe import Earlier, Recipe, Tuned
from tracer_serve.components.finetune.tokens import Tokens
from tracer_serve.components.finetune.train import logits_of, pooled_of, temperature_of, train
from tracer_serve.components.finetune.training_plan import Plan, bfloat16_pays
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.types import Floats, Ints, Labels, Text

_HELD_SHARE, _MOST_HELD = 0.1, 2000
_FEWEST_HELD = 30  # with fewer held-out rows neither an epoch nor a temperature can be chosen
_SAME_LOGITS = 0.02  # between the network and its graph, both in float32
_PROBES = 8
_LESS_AGREEMENT, _MORE_LOSS = 0.002, 1.02  # what 8 bits may cost on the held-out rows


def fine_tune(recipe: Recipe, texts: Sequence[Text], classes: Labels, codes: Ints, earlier: Earlier | None) -> Tuned:
    """Fine-tune on n texts or pairs with class indices `codes` (n,), and export the network.

    Raises
    ------
    ArtifactError
        If the model is missing or has no ``tokenizer.json``.
    PluginError
        If a package is missing, or the graph's logits differ from the network's.
    """
    folder = pretrained.locate(*recipe.source)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        pairs = any(isinstance(text, tuple) for text in texts[:1])
        cosine = recipe.head == "prototypes" or (recipe.head == "auto" and not pairs)
        network = Network(folder, classes, frozen_layers=recipe.frozen_layers, cosine=cosine)
        blank = OnnxEncoder(b"", _tokenizer(folder), recipe.max_tokens, network.pad, eight_bits=False)
        keep, out = _held_out(texts, codes, recipe.seed)
        descriptions, described = ([], []) if pairs else _described(recipe.descriptions, classes)
        tokens = blank.tokens([*(texts[i] for i in keep), *descriptions])
        targets = np.concatenate([codes[keep], np.array(described, np.int64)])
        held = (blank.tokens([texts[i] for i in out]), codes[out]) if len(out) else None
        plan = _plan(recipe, recipe.epochs if earlier is None else recipe.warm_epochs)
        if cosine:
            network.start_from(pooled_of(network, tokens, plan), targets)
        if earlier is not None:
            network.resume(earlier.trained, earlier.classes)
        agreement = train(network, tokens, targets, plan, held)
    return replace(_exported(recipe, network, blank, held, agreement), held_out=out)


def _exported(
    recipe: Recipe, network: Network, blank: OnnxEncoder, held: tuple[Tokens, Ints] | None, agreement: list[float]
) -> Tuned:
    trained, count = network.trained(), len(network.classes)
    full = blank.of(export(network), eight_bits=False)
    probes = held[0].take(np.arange(min(_PROBES, len(held[0])))) if held else blank.tokens(["a probe", "another one"])
    own = logits_of(network, probes, replace(_plan(recipe, 0), device="cpu", half=False))
    gap = float(np.abs(own - full.logits(probes, count)).max())
    if not gap <= _SAME_LOGITS * max(1.0, float(np.abs(own).max())):
        raise PluginError(f"the ONNX export of {recipe.source[0]!r} differs from the model (logits by {gap:g})")
    served = full
    if recipe.backend != "onnx" and (held or recipe.backend == "onnx-int8"):
        small = blank.of(eight_bits(full.graph), eight_bits=True)
        if recipe.backend == "onnx-int8" or (held and _as_good(small, full, *held, count)):
            served = small
    temperature = temperature_of(served.logits(held[0], count), held[1]) if held else 1.0
    return Tuned(served, temperature, trained, tuple(agreement))


def _as_good(small: OnnxEncoder, full: OnnxEncoder, tokens: Tokens, codes: Ints, classes: int) -> bool:
    """Return whether 8 bits lose neither agreement nor log loss on the held-out rows; coverage depends on both."""
    agreement, loss = zip(*(_judge(one.logits(tokens, classes), codes) for one in (small, full)), strict=True)
    return bool(agreement[0] >= agreement[1] - _LESS_AGREEMENT and loss[0] <= loss[1] * _MORE_LOSS)


def _judge(logits: Floats, codes: Ints) -> tuple[float, float]:
    """Return agreement and log loss at the best temperature."""
    scaled = logits / temperature_of(logits, codes)
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    loss = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(codes)), codes]
    return float((logits.argmax(axis=1) == codes).mean()), float(loss.mean())


def _plan(recipe: Recipe, epochs: int) -> Plan:
    device = recipe.device or ("cuda" if torch.cuda.is_available() else "cpu")
    half = bfloat16_pays(device) if recipe.precision == "auto" else recipe.precision == "bfloat16"
    return Plan(
        epochs=epochs,
        rate=recipe.learning_rate,
        batch=recipe.batch_size,
        seconds=recipe.seconds,
        patience=recipe.patience,
        seed=recipe.seed,
        device=device,
        half=half,
    )


def _held_out(texts: Sequence[Text], codes: Ints, seed: int) -> tuple[Ints, Ints]:
    """Return the training rows and the held-out rows: a tenth, or none if a tenth is too few.

    Rows are held out by a hash of the text, so that a warm start holds out the same rows as the earlier training.
    """
    drawn = np.array([zlib.crc32(f"{seed} {text}".encode("utf-8", "surrogatepass")) for text in texts]) / 2**32
    out = np.argsort(drawn, kind="stable")[: min(_MOST_HELD, int((drawn < _HELD_SHARE).sum()))]
    if len(out) < _FEWEST_HELD:
        return np.arange(len(codes)), out[:0]
    keep = np.setdiff1d(np.arange(len(codes)), out)
    alone = out[~np.isin(codes[out], codes[keep])]  # the only row of a label is used for training
    return np.union1d(keep, alone), np.setdiff1d(out, alone)


def _described(descriptions: dict[str, str], classes: Labels) -> tuple[list[str], list[int]]:
    """Return a text for each class, its description or its name in words, and the class index."""
    return [descriptions.get(str(label)) or str(label).replace("_", " ") for label in classes], list(
        range(len(classes))
    )


def _tokenizer(folder: Path) -> str:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ArtifactError(f"{folder} has no tokenizer.json: the encoder needs a fast tokenizer, save it with one")
    return file.read_text(encoding="utf-8")
