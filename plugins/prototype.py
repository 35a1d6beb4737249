"""Example of a surrogate: softmax over the similarity to each label's mean embedding.

Copy this file, name it under `plugins:` in your YAML, and use it: `surrogates: [{type: prototype, temperature: 0.05}]`.
The parameters of `__init__` are the schema of that block. What `fit` keeps in plain attributes (numpy arrays, numbers,
strings, lists) is saved and loaded with the version; there is no code to write for it.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.registry import surrogates
from tracer_serve.types import Floats, Inputs, Labels


@surrogates.register("prototype")
class Prototype:
    """Nearest class mean by cosine; a smaller temperature is a sharper answer."""

    stable = True  # means of nine tenths of the rows are nearly those of all rows

    def __init__(self, temperature: Annotated[float, Field(gt=0)] = 0.1) -> None:
        self.temperature = temperature

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Keep the unit-norm mean of each label's embeddings; `inputs.texts` has the texts, if you need them."""
        self.classes_: Labels = np.unique(labels)  # sorted: the columns of `predict_proba` follow it
        means = np.stack([inputs.embeddings[labels == label].mean(axis=0) for label in self.classes_])
        self.means_ = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return self

    def predict_proba(self, inputs: Inputs) -> Floats:
        """Return probabilities of shape (n, labels): each row sums to 1."""
        logits = inputs.embeddings @ self.means_.T / self.temperature
        mass = np.exp(logits - logits.max(axis=1, keepdims=True))
        proba: Floats = mass / mass.sum(axis=1, keepdims=True)
        return proba
