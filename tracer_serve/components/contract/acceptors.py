"""Contract checks for acceptors."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from tracer_serve.components.contract._run import reloaded, require, require_array, require_close, run
from tracer_serve.protocols import Acceptor
from tracer_serve.types import Bools, Evidence, Floats, Inputs, Neighbours, Vectors

_ROWS, _NEIGHBOURS = 400, 15
_SAME = 1e-4


class AcceptorCase:
    """Synthetic evidence for one acceptor: confident, undisputed rows near known ones mostly agree."""

    def __init__(self, factory: Callable[[], Acceptor]) -> None:
        self.factory = factory
        self.evidence, self.agreed = plant(_ROWS, classes=4)

    @cached_property
    def features(self) -> Vectors:
        """Features of the planted rows."""
        return self.factory().features(self.evidence)

    @cached_property
    def fitted(self) -> Acceptor:
        """One fitted acceptor."""
        return self.factory().fit(self.features, self.agreed)

    @cached_property
    def score(self) -> Floats:
        """Scores of the planted rows."""
        return self.fitted.score(self.features)


def plant(rows: int, classes: int, members: int = 2) -> tuple[Evidence, Bools]:
    """Return evidence whose easy half mostly agrees with the teacher and whose hard half mostly does not."""
    rng = np.random.default_rng(0)
    easy = np.arange(rows) % 2 == 0
    agreed = rng.random(rows) < np.where(easy, 0.95, 0.4)
    label = rng.integers(0, classes, rows)
    logits = rng.normal(scale=0.5, size=(members, rows, classes))
    logits[:, np.arange(rows), label] += np.where(easy, 4, 0.5)
    each = np.exp(logits)
    each /= each.sum(axis=2, keepdims=True)
    proba = each.mean(axis=0)
    near = np.where(rng.random((rows, _NEIGHBOURS)) < np.where(easy, 0.9, 0.4)[:, None], proba.argmax(1)[:, None], 0)
    similarity = -np.sort(-rng.uniform(0, 1, (rows, _NEIGHBOURS)) * np.where(easy, 1, 0.6)[:, None], axis=1)
    neighbours = Neighbours(similarity.astype(np.float32), near, rng.integers(0, rows, near.shape))
    inputs = Inputs([f"text {i}" for i in range(rows)], rng.normal(size=(rows, 8)).astype(np.float32))
    return Evidence(inputs, proba.astype(np.float32), each.astype(np.float32), neighbours), agreed


def features_are_a_float_table(case: AcceptorCase) -> None:
    """`features` returns a float32 table with one row per input."""
    require_array(case.features)
    shape, dtype = case.features.shape, case.features.dtype
    require(len(shape) == 2 and shape[0] == _ROWS, f"shape {shape}")  # noqa: PLR2004
    require(dtype == np.float32, f"dtype {dtype}; `.astype(np.float32)` makes it")


def fit_returns_the_acceptor(case: AcceptorCase) -> None:
    """`fit` returns the acceptor itself."""
    acceptor = case.factory()
    found: object = acceptor.fit(case.features, case.agreed)
    require(found is acceptor, f"`fit` returned {type(found).__name__}; end it with `return self`")


def features_learn_nothing(case: AcceptorCase) -> None:
    """The features of a row depend neither on the rest of its batch nor on a fit, because folds are stacked."""
    rows = np.arange(_ROWS)[::-3]
    part = case.fitted.features(_take(case.evidence, rows))
    require_close(part, case.features[rows], _SAME, "a batch and a part of it after a fit")


def score_is_finite_or_nan(case: AcceptorCase) -> None:
    """`score` returns one number per row, finite or NaN, and not NaN for every row."""
    require_array(case.score)
    require(case.score.shape == (_ROWS,), f"shape {case.score.shape}")
    require(not np.isinf(case.score).any(), "some scores are infinite")
    require(not np.isnan(case.score).all(), "all scores are NaN")


def higher_is_safer(case: AcceptorCase) -> None:
    """Where confident, undisputed rows mostly agree, rows that agree score higher on average."""
    right, wrong = (np.nanmean(case.score[rows]) for rows in (case.agreed, ~case.agreed))
    require(right > wrong, f"mean score {right:.3g} where the teacher agreed, {wrong:.3g} where it did not")


def fits_are_deterministic(case: AcceptorCase) -> None:
    """Two fits on the same rows score the same."""
    again = case.factory().fit(case.features, case.agreed).score(case.features)
    require_close(again, case.score, _SAME, "two fits")


def inputs_stay_as_they_were(case: AcceptorCase) -> None:
    """`features`, `fit` and `score` do not modify their arguments."""
    given, untouched = AcceptorCase(case.factory), AcceptorCase(case.factory)
    features = given.features.copy()
    given.fitted.score(given.features)
    require(np.array_equal(given.features, features, equal_nan=True), "the features changed")
    require(np.array_equal(given.agreed, untouched.agreed), "`agreed` changed")
    for part in ("proba", "members"):
        same = np.array_equal(getattr(given.evidence, part), getattr(untouched.evidence, part))
        require(same, f"`evidence.{part}` changed")


def agreement_alone_survives(case: AcceptorCase) -> None:
    """A fit on rows that all agree, and a fit on ten rows, raise no error."""
    for features, agreed in ((case.features, np.ones(_ROWS, bool)), (case.features[:10], case.agreed[:10])):
        score = case.factory().fit(features, agreed).score(features)
        require(score.shape == agreed.shape and not np.isinf(score).any(), "the scores are infinite or misshapen")


def a_single_class_survives(case: AcceptorCase) -> None:
    """A single class with a single member raises no error."""
    acceptor = case.factory()
    evidence, agreed = plant(40, classes=1, members=1)
    features = acceptor.features(evidence)
    require(acceptor.fit(features, agreed).score(features).shape == (40,), "the scores are misshapen")


def missing_neighbours_survive(case: AcceptorCase) -> None:
    """Rows that have no neighbours (similarity -inf) get a score that is finite or NaN."""
    none = Neighbours(np.full((_ROWS, _NEIGHBOURS), -np.inf, np.float32), *_indices(case.evidence.neighbours))
    alone = Evidence(case.evidence.inputs, case.evidence.proba, case.evidence.members, none)
    require(not np.isinf(case.fitted.score(case.fitted.features(alone))).any(), "some scores are infinite")


def an_empty_batch_survives(case: AcceptorCase) -> None:
    """No rows give no scores."""
    none = case.fitted.features(_take(case.evidence, np.arange(0)))
    require(none.shape == (0, case.features.shape[1]), f"features of shape {none.shape}")
    require(case.fitted.score(none).shape == (0,), "the scores are not empty")


def state_survives_the_disk(case: AcceptorCase) -> None:
    """Saved by `tracer_serve.components.persistence` and loaded again, it scores the same."""
    require_close(reloaded(case.fitted).score(case.features), case.score, 1e-6, "before and after")


CHECKS: Sequence[Callable[[AcceptorCase], None]] = (
    features_are_a_float_table,
    fit_returns_the_acceptor,
    features_learn_nothing,
    score_is_finite_or_nan,
    higher_is_safer,
    fits_are_deterministic,
    inputs_stay_as_they_were,
    agreement_alone_survives,
    a_single_class_survives,
    missing_neighbours_survive,
    an_empty_batch_survives,
    state_survives_the_disk,
)


def check_acceptor(factory: Callable[[], Acceptor], name: str = "the acceptor") -> None:
    """Check an acceptor against the contract, on 400 planted rows.

    Parameters
    ----------
    factory : makes a fresh, unfitted acceptor
    name : name in errors

    Raises
    ------
    PluginError
        Naming the check that failed.
    """
    run(CHECKS, AcceptorCase(factory), name)


def _take(evidence: Evidence, rows: np.ndarray) -> Evidence:
    near = evidence.neighbours
    some = Neighbours(near.similarity[rows], near.label[rows], near.row[rows])
    return Evidence(evidence.inputs.take(rows), evidence.proba[rows], evidence.members[:, rows], some)


def _indices(near: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(near.label), np.zeros_like(near.row)
