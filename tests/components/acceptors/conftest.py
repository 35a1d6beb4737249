"""Evidence made up for the acceptors: a world in which it is known who is right."""

from collections.abc import Callable

import numpy as np
import pytest

from tracer_serve.types import Evidence, Inputs, Neighbours

Make = Callable[..., Evidence]


def evidence(n: int = 300, k: int = 5, *, members: int = 2, neighbours: int = 15, seed: int = 0) -> Evidence:
    """Random probabilities of n rows over k classes, random neighbours of which the last are missing."""
    rng = np.random.default_rng(seed)
    each = rng.dirichlet(np.full(k, 0.3), (members, n)).astype(np.float32)
    proba = each.mean(axis=0)
    similarity = np.full((n, 15), -np.inf, np.float32)
    similarity[:, :neighbours] = -np.sort(-rng.uniform(-0.2, 1, (n, neighbours)), axis=1)
    near = Neighbours(similarity, rng.integers(0, k, (n, 15)), rng.integers(0, 1000, (n, 15)))
    return Evidence(Inputs([""] * n, np.zeros((n, 2), np.float32)), proba, each, near)


def rows(seen: Evidence, part: slice) -> Evidence:
    """Some rows of evidence."""
    near = seen.neighbours
    return Evidence(
        Inputs(seen.inputs.texts[part], seen.inputs.embeddings[part]),
        seen.proba[part],
        seen.members[:, part],
        Neighbours(near.similarity[part], near.label[part], near.row[part]),
    )


@pytest.fixture(params=["top1", "margin", "logistic"])
def name(request: pytest.FixtureRequest) -> str:
    """Each built-in acceptor in turn."""
    return str(request.param)
