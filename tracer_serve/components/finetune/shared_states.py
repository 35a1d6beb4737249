"""What trainings of one fit may share: hidden states of frozen layers, which depend on no label and on no fold."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

States = dict[Hashable, NDArray[np.float16]]
"""Hidden states of an input, shape (tokens, width), by model, layers, precision and token ids."""

_shared: ContextVar[States | None] = ContextVar("shared_states", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let all trainings in this block share hidden states; they are forgotten where it ends."""
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def states() -> States:
    """Return the states of the surrounding `sharing` block; without one, or on a cluster's worker, new ones."""
    found = _shared.get()
    return {} if found is None else found
