"""Contract checks for embedders."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from tracer_serve.components.contract._run import reloaded, require, require_array, require_close, run
from tracer_serve.protocols import Embedder
from tracer_serve.types import Text, Vectors

TEXTS: Sequence[Text] = (
    "I lost my card yesterday",
    "my card was stolen",
    "what is the exchange rate today",
    "which exchange rate do you use",
    "my top up failed again",
    "why did the top up fail",
    "I lost my card yesterday",
)
_OTHER_TEXTS: Sequence[Text] = ("quite other words", "and other words again", "nothing in common here")
_SAME = 5e-3  # sentence vectors differ a little with batch and padding


class EmbedderCase:
    """An embedder fitted once on a few texts, of which the first and the last are equal."""

    def __init__(self, factory: Callable[[], Embedder], texts: Sequence[Text], other_texts: Sequence[Text]) -> None:
        self.factory, self.texts, self.other_texts = factory, texts, other_texts

    @cached_property
    def fitted(self) -> Embedder:
        """One fitted embedder."""
        return self.factory().fit(self.texts)

    @cached_property
    def vectors(self) -> Vectors:
        """Its vectors of the texts."""
        return self.fitted.embed(self.texts)


def vectors_are_a_float_table(case: EmbedderCase) -> None:
    """`embed` returns a float32 table with one row per text, all of them finite."""
    require_array(case.vectors)
    shape, dtype = case.vectors.shape, case.vectors.dtype
    require(len(shape) == 2 and shape[0] == len(case.texts), f"shape {shape}")  # noqa: PLR2004
    require(dtype == np.float32, f"dtype {dtype}; `.astype(np.float32)` makes it")
    require(np.isfinite(case.vectors).all(), "some numbers are not finite")


def equal_texts_have_equal_vectors(case: EmbedderCase) -> None:
    """The vector of a text does not depend on the batch that it comes in."""
    require_close(case.vectors[-1], case.vectors[0], _SAME, "the same text twice in a batch")
    require_close(case.fitted.embed(case.texts[:1]), case.vectors[:1], _SAME, "in a batch and alone")


def other_texts_have_other_vectors(case: EmbedderCase) -> None:
    """Texts without a word in common do not get the same vector."""
    require(np.abs(case.vectors[0] - case.vectors[2]).max() > _SAME, "two different texts have the same vector")


def fingerprint_is_stable(case: EmbedderCase) -> None:
    """`fingerprint` is a string that neither embedding nor another fit on the same texts changes."""
    before = case.fitted.fingerprint
    require(isinstance(before, str) and before, f"it is {before!r}")
    case.fitted.embed(case.other_texts)
    require(case.fitted.fingerprint == before, "embedding changed it")
    require(case.factory().fit(case.texts).fingerprint == before, "a second fit on the same texts has another")


def only_texts_change_a_fit(case: EmbedderCase) -> None:
    """Fitted on other texts, a trainable embedder has another fingerprint, a frozen one the same."""
    same = case.factory().fit(case.other_texts).fingerprint == case.fitted.fingerprint
    require(same is not case.fitted.trainable, "it has the same" if same else "it is frozen and has another")


def fits_are_deterministic(case: EmbedderCase) -> None:
    """Two fits on the same texts give the same vectors."""
    require_close(case.factory().fit(case.texts).embed(case.texts), case.vectors, _SAME, "two fits")


def an_empty_batch_survives(case: EmbedderCase) -> None:
    """No texts give no rows, of the usual width."""
    shape = case.fitted.embed([]).shape
    require(shape == (0, case.vectors.shape[1]), f"shape {shape}")


def state_survives_the_disk(case: EmbedderCase) -> None:
    """A trainable embedder that is written and read back has the same fingerprint and vectors."""
    if case.fitted.trainable:
        loaded = reloaded(case.fitted)
        require(loaded.fingerprint == case.fitted.fingerprint, "the fingerprint changed")
        require_close(loaded.embed(case.texts), case.vectors, 1e-5, "before and after")


CHECKS: Sequence[Callable[[EmbedderCase], None]] = (
    vectors_are_a_float_table,
    equal_texts_have_equal_vectors,
    other_texts_have_other_vectors,
    fingerprint_is_stable,
    only_texts_change_a_fit,
    fits_are_deterministic,
    an_empty_batch_survives,
    state_survives_the_disk,
)


def check_embedder(
    factory: Callable[[], Embedder],
    name: str = "the embedder",
    texts: Sequence[Text] = TEXTS,
    other_texts: Sequence[Text] = _OTHER_TEXTS,
) -> None:
    """Check an embedder against the contract.

    Parameters
    ----------
    factory : makes a fresh, unfitted embedder
    name : name in errors
    texts : texts to embed, the first equal to the last and unlike the third
    other_texts : texts that have little in common with those

    Raises
    ------
    PluginError
        Naming the check that failed.
    """
    run(CHECKS, EmbedderCase(factory, texts, other_texts), name)
