"""Detect texts that a component reads only in part."""

from collections.abc import Sequence

import numpy as np

from tracer_serve.types import Bools, Text, sides_of

_SPECIAL = 4  # tokens that a model adds to a text or a pair, at most


def truncated(component: object, texts: Sequence[Text]) -> Bools:
    """Return which texts an embedder or a surrogate reads only in part, shape (n,); see `protocols.Truncating`."""
    # not isinstance: a check against a protocol takes as long as a small matrix product
    says = getattr(component, "truncates", None)
    if says is None:
        return np.zeros(len(texts), bool)
    found: Bools = np.asarray(says(texts), bool)
    return found


def may_exceed(text: Text, tokens: int) -> bool:
    """Return whether a text may have more than `tokens` tokens, without a tokenizer: a token has at least one byte.

    Examples
    --------
    >>> may_exceed("hello", 16), may_exceed("hello" * 9, 16)
    (False, True)
    """
    return sum(len(side.encode("utf-8", "surrogatepass")) for side in sides_of(text)) + _SPECIAL > tokens
