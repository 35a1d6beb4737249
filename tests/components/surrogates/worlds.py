"""Made-up inputs of which the labels are known."""

import numpy as np

from tracer_serve.types import Inputs, Labels


def blobs(rows: int = 300, classes: int = 3, spread: float = 0.3, seed: int = 0) -> tuple[Inputs, Labels]:
    """Unit vectors around one direction per class, and texts with one word per class and one of no meaning."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    vectors = np.eye(max(classes, 8))[truth] + rng.normal(scale=spread, size=(rows, max(classes, 8)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"about {chr(97 + c) * 4} number {rng.integers(100)}" for c in truth]
    return Inputs(texts, vectors.astype(np.float32)), np.array([f"label {c}" for c in truth])


def share_right(proba: np.ndarray, classes: Labels, labels: Labels) -> float:
    """Share of rows whose most probable class is the label."""
    return float((classes[proba.argmax(axis=1)] == labels).mean())
