"""Scores of rows by acceptors that have not seen them, on one scale, and only where they tell something."""

from typing import Self

import numpy as np
import pytest

from tracer_serve.components.acceptors.top1 import Top1
from tracer_serve.fit.cross_score import cross_score, evidence_of, translate
from tracer_serve.types import Bools, Floats, Vectors


class Moody:
    """A learnt score on a scale of its own at every fit: the evidence times how many rows it saw."""

    def __init__(self) -> None:
        self.rows = 0

    def features(self, evidence: object) -> Vectors:
        raise NotImplementedError(evidence)

    def fit(self, features: Vectors, agreed: Bools) -> Self:
        del agreed
        self.rows = len(features)
        return self

    def score(self, features: Vectors) -> Floats:
        scaled: Floats = features[:, 0] * self.rows
        return scaled


def rows(n: int = 1000, informative: bool = True) -> tuple[Vectors, Bools, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(0)
    evidence = rng.random(n)
    agreed = rng.random(n) < (0.6 + 0.4 * evidence if informative else 0.8)
    return evidence[:, None].astype(np.float32), agreed, rng.integers(0, 5, n)


def test_scores_of_all_folds_lie_on_the_served_scale() -> None:
    """However an acceptor's scale moves from fit to fit, a threshold accepts the same share of rows as when served."""
    features, agreed, fold = rows()
    crossed, served = cross_score(Moody, features, agreed, fold), Moody().fit(features, agreed).score(features)
    assert crossed is not None
    for threshold in np.quantile(served, [0.1, 0.5, 0.9]):
        assert (crossed >= threshold).mean() == pytest.approx((served >= threshold).mean(), abs=0.002)


def test_a_learnt_score_that_tells_nothing_is_none() -> None:
    """Without evidence a learnt score may not be used; one that owes nothing to labels may; NaN stays NaN."""
    features, agreed, fold = rows(informative=False)
    features[0] = np.nan
    assert cross_score(Moody, features, agreed, fold) is None
    fixed = cross_score(Top1, features, agreed, fold)
    assert fixed is not None
    assert np.isnan(fixed[0])
    np.testing.assert_allclose(fixed[1:], features[1:, 0])


def test_evidence_is_the_standard_error_of_ranks() -> None:
    """Shuffled scores stay within a few standard errors, perfect ones go far beyond, undecidable ones count zero."""
    rng = np.random.default_rng(1)
    agreed = rng.random(500) < 0.8
    null = [evidence_of(rng.random(500), agreed) for _ in range(300)]
    assert np.std(null) == pytest.approx(1.0, abs=0.12)
    assert abs(np.mean(null)) < 0.2
    assert evidence_of(agreed + 0.0, agreed) > 15
    assert evidence_of(np.zeros(500), agreed) == 0.0
    assert evidence_of(rng.random(500), np.ones(500, bool)) == 0.0


def test_translation_keeps_ranks() -> None:
    """The safest tenth on one scale is the safest tenth on the other; NaN stays NaN."""
    source, target = np.arange(100.0), np.arange(100.0) * 7 + 3
    carried = translate(np.array([95.0, 5.0, np.nan]), source, target)
    assert carried[:2].tolist() == [95 * 7 + 3, 5 * 7 + 3]
    assert np.isnan(carried[2])
