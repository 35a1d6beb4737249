"""Contract checks for surrogates."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from tracer_serve.components.contract._run import reloaded, require, require_array, require_close, run
from tracer_serve.protocols import Ensemble, Surrogate
from tracer_serve.types import Floats, Inputs, Labels

_CLASSES = ("10", "9", "zebra")  # sorted as strings; numeric order or order of appearance would differ
_WORDS = ("card was lost", "rate of exchange", "top up failed")
_ROWS = 90
_SAME = 1e-4  # batches of other sizes round differently


class SurrogateCase:
    """A surrogate fitted once, for all checks, on three classes that are separable by words and by vectors."""

    def __init__(self, factory: Callable[[], Surrogate]) -> None:
        self.factory = factory
        rng = np.random.default_rng(0)
        truth = np.arange(_ROWS)[::-1] % len(_CLASSES)
        vectors = rng.normal(scale=0.1, size=(_ROWS, 8)) + 2 * np.eye(8)[truth]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.inputs = Inputs([f"{_WORDS[c]} {i}" for i, c in enumerate(truth)], vectors.astype(np.float32))
        self.labels: Labels = np.array(_CLASSES)[truth]

    def fit(self, labels: Labels | None = None) -> Surrogate:
        """Fit a fresh surrogate."""
        return self.factory().fit(self.inputs, self.labels if labels is None else labels)

    @cached_property
    def fitted(self) -> Surrogate:
        """One fitted surrogate."""
        return self.fit()

    @cached_property
    def proba(self) -> Floats:
        """Return the probabilities of its training rows."""
        return self.fitted.predict_proba(self.inputs)


def fit_returns_the_surrogate(case: SurrogateCase) -> None:
    """`fit` returns the surrogate itself."""
    surrogate = case.factory()
    found: object = surrogate.fit(case.inputs, case.labels)
    require(found is surrogate, f"`fit` returned {type(found).__name__}; end it with `return self`")


def classes_are_sorted(case: SurrogateCase) -> None:
    """`classes_` is a sorted array of strings without repeats, all of them labels of the fit."""
    classes = case.fitted.classes_
    require(isinstance(classes, np.ndarray) and classes.dtype.kind == "U", "`classes_` is not a numpy array of str")
    require(classes.tolist() == sorted(set(classes.tolist())), f"`classes_` is {classes.tolist()}")
    require(set(classes.tolist()) <= set(_CLASSES), f"{classes.tolist()} holds values that were no labels")


def proba_has_one_column_per_class(case: SurrogateCase) -> None:
    """`predict_proba` returns one row per input and one column per class."""
    expected = (len(case.inputs), len(case.fitted.classes_))
    require_array(case.proba)
    require(case.proba.shape == expected, f"shape {case.proba.shape} instead of {expected}")


def proba_is_a_distribution(case: SurrogateCase) -> None:
    """Every row of `predict_proba` is finite, not negative, and sums to 1."""
    _require_distribution(case.proba)


def columns_follow_classes(case: SurrogateCase) -> None:
    """Column j belongs to `classes_[j]`: it is highest on the rows of that class."""
    for j, label in enumerate(case.fitted.classes_):
        means = case.proba[case.labels == label].mean(axis=0)
        require(means.argmax() == j, f"on rows of {str(label)!r} the columns average {np.round(means, 2).tolist()}")


def fits_are_deterministic(case: SurrogateCase) -> None:
    """Two fits on the same rows give the same probabilities."""
    require_close(case.fit().predict_proba(case.inputs), case.proba, _SAME, "two fits")


def fits_stand_alone(case: SurrogateCase) -> None:
    """Fitting another instance does not change this one: learned state is in `self`."""
    first = case.fit()
    case.fit(np.full(len(case.labels), _CLASSES[2]))
    require_close(first.predict_proba(case.inputs), case.proba, _SAME, "before and after another's fit")


def rows_are_independent(case: SurrogateCase) -> None:
    """The probabilities of a row depend neither on the other rows of its batch nor on their order."""
    rows = np.arange(len(case.inputs))[::-7]
    require_close(case.fitted.predict_proba(case.inputs.take(rows)), case.proba[rows], _SAME, "a batch and a part")
    alone = case.fitted.predict_proba(case.inputs.take(np.array([4])))
    require_close(alone, case.proba[4:5], _SAME, "a batch and a row alone")


def inputs_stay_as_they_were(case: SurrogateCase) -> None:
    """Neither `fit` nor `predict_proba` changes texts, embeddings or labels."""
    given, untouched = SurrogateCase(case.factory), SurrogateCase(case.factory)
    given.fitted.predict_proba(given.inputs)
    require(np.array_equal(given.inputs.embeddings, untouched.inputs.embeddings), "the embeddings changed")
    require(given.inputs.texts == untouched.inputs.texts, "the texts changed")
    require(np.array_equal(given.labels, untouched.labels), "the labels changed")


def a_single_class_is_certain(case: SurrogateCase) -> None:
    """A teacher with one label is imitated with probability 1."""
    only = case.fit(np.full(len(case.labels), _CLASSES[0]))
    require(only.classes_.tolist() == [_CLASSES[0]], f"`classes_` is {only.classes_.tolist()}")
    require_close(only.predict_proba(case.inputs), np.ones((len(case.inputs), 1)), 1e-6, "probability and 1")


def a_class_with_one_row_survives(case: SurrogateCase) -> None:
    """A label seen once, and two labels in all, are no error."""
    labels = np.full(len(case.labels), _CLASSES[1])
    labels[3] = _CLASSES[2]
    _require_distribution(case.fit(labels).predict_proba(case.inputs))


def strange_texts_survive(case: SurrogateCase) -> None:
    """Unseen words, empty texts, other scripts, long texts and zero vectors get a distribution too."""
    texts = ["", " \n", "\U0001f4b3 \u00fcber \u5361", "x" * 5000, "unseen"]
    vectors = np.zeros((len(texts), case.inputs.embeddings.shape[1]), np.float32)
    _require_distribution(case.fitted.predict_proba(Inputs(texts, vectors)))


def an_empty_batch_survives(case: SurrogateCase) -> None:
    """No inputs give no rows."""
    none = case.fitted.predict_proba(Inputs([], case.inputs.embeddings[:0]))
    require(none.shape == (0, len(case.fitted.classes_)), f"shape {none.shape}")


def state_survives_the_disk(case: SurrogateCase) -> None:
    """Saved by `tracer_serve.components.persistence` and loaded again, it predicts the same."""
    loaded = reloaded(case.fitted)
    require(np.array_equal(loaded.classes_, case.fitted.classes_), f"`classes_` came back as {loaded.classes_}")
    require_close(loaded.predict_proba(case.inputs), case.proba, 1e-6, "before and after")


def members_combine_to_the_whole(case: SurrogateCase) -> None:
    """An ensemble's members are distributions in its classes' order, and combine to what `predict_proba` returns."""
    if isinstance(case.fitted, Ensemble):
        members = case.fitted.predict_members(case.inputs)
        require(members.ndim == 3 and members.shape[1:] == case.proba.shape, f"shape {members.shape}")  # noqa: PLR2004
        for member in members:
            _require_distribution(member)
        require_close(case.fitted.combine(members), case.proba, _SAME, "combined and whole")


CHECKS: Sequence[Callable[[SurrogateCase], None]] = (
    fit_returns_the_surrogate,
    classes_are_sorted,
    proba_has_one_column_per_class,
    proba_is_a_distribution,
    columns_follow_classes,
    fits_are_deterministic,
    a_single_class_is_certain,
    fits_stand_alone,
    rows_are_independent,
    inputs_stay_as_they_were,
    a_class_with_one_row_survives,
    strange_texts_survive,
    an_empty_batch_survives,
    state_survives_the_disk,
    members_combine_to_the_whole,
)


def check_surrogate(factory: Callable[[], Surrogate], name: str = "the surrogate") -> None:
    """Check a surrogate against the contract, on 90 rows; most take a fraction of a second.

    Parameters
    ----------
    factory : makes a fresh, unfitted surrogate
    name : name in errors

    Raises
    ------
    PluginError
        Naming the check that failed.
    """
    run(CHECKS, SurrogateCase(factory), name)


def _require_distribution(proba: Floats) -> None:
    require(np.isfinite(proba).all(), "some probabilities are not finite")
    require((proba >= 0).all(), "some probabilities are negative")
    sums = proba.sum(axis=1)
    require(np.allclose(sums, 1, atol=1e-3), f"a row sums to {sums[np.abs(sums - 1).argmax()]:.3g}")
