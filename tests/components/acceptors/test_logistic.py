"""The logistic acceptor: right weights, on every kind of data, from evidence that the surrogate does not have."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tests.components.acceptors.conftest import evidence
from tracer_serve.components.acceptors.logistic import Logistic
from tracer_serve.types import Evidence, Inputs, Neighbours


def world(n: int, seed: int) -> tuple[Evidence, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Rows on which a surrogate is always .8 sure, and right as often as its neighbours share its label."""
    rng = np.random.default_rng(seed)
    share = rng.random(n)
    proba = np.tile(np.array([0.8, 0.2], np.float32), (n, 1))
    label = (rng.random((n, 15)) > share[:, None]).astype(int)
    near = Neighbours(np.full((n, 15), 0.7, np.float32), label, label)
    return Evidence(Inputs([""] * n, np.zeros((n, 1), np.float32)), proba, proba[None], near), rng.random(n) < share


def test_minimises_the_penalised_loss() -> None:
    """The weights are those that scikit-learn finds for the same loss."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 4)).astype(np.float32) * np.array([1, 10, 0.1, 3], np.float32)
    agreed = rng.random(2000) < 1 / (1 + np.exp(-(features @ [1, 0.1, -5, 0.2] + 2)))
    acceptor = Logistic(l2=1.0).fit(features, agreed)
    scaled = (features - acceptor.mean) / acceptor.scale
    peer = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaled, agreed)
    np.testing.assert_allclose(acceptor.weights, peer.coef_[0], atol=1e-3)
    np.testing.assert_allclose(acceptor.score(features), peer.predict_proba(scaled)[:, 1], atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_converges_where_full_newton_steps_diverge(seed: int) -> None:
    """On probabilities next to one, and their log odds, the fit finds the same minimum as scikit-learn."""
    rng = np.random.default_rng(seed)
    sure = np.clip(1 - 0.01 * rng.exponential(size=4000) ** 3, 1e-6, 1 - 1e-6)
    agreed = rng.random(4000) < 0.5 + 0.5 * sure
    features = np.column_stack([sure, np.log(sure / (1 - sure))]).astype(np.float32)
    acceptor = Logistic().fit(features, agreed)
    scaled = (features - acceptor.mean) / acceptor.scale
    peer = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaled, agreed)
    np.testing.assert_allclose(acceptor.score(features), peer.predict_proba(scaled)[:, 1], atol=1e-3)


def test_learns_from_neighbours_what_probabilities_do_not_say() -> None:
    """If only the neighbours separate right from wrong, unseen rows are ranked by them."""
    seen, agreed = world(2000, 0)
    new, truth = world(2000, 1)
    acceptor = Logistic().fit(Logistic().features(seen), agreed)
    score = acceptor.score(acceptor.features(new))
    assert roc_auc_score(truth, score) > 0.75
    assert abs(score.mean() - truth.mean()) < 0.05


@pytest.mark.parametrize(("wrong", "falls_back"), [(0, True), (49, True), (50, False), (251, True)])
def test_falls_back_to_the_largest_probability(wrong: int, falls_back: bool) -> None:
    """With under 50 disagreements, or agreements, there is nothing to learn from, and the score is the largest one."""
    seen = evidence(n=300)
    acceptor = Logistic()
    features = acceptor.features(seen)
    score = acceptor.fit(features, np.arange(300) >= wrong).score(features)
    assert np.array_equal(score, seen.proba.max(axis=1)) is falls_back


def test_a_refit_forgets() -> None:
    """A refit on too few disagreements resets what was learned before."""
    seen = evidence(n=300)
    acceptor = Logistic()
    features = acceptor.features(seen)
    acceptor.fit(features, np.arange(300) >= 100).fit(features, np.ones(300, bool))
    np.testing.assert_array_equal(acceptor.score(features), seen.proba.max(axis=1))


def test_rows_without_features_teach_nothing() -> None:
    """NaN rows in the fit change no weight."""
    acceptor, seen = Logistic(), evidence(n=300)
    features = acceptor.features(seen)
    agreed = np.random.default_rng(0).random(300) < 0.5
    plain = acceptor.fit(features, agreed).score(features)
    broken = np.vstack([features, np.full_like(features[:9], np.nan)])
    np.testing.assert_array_equal(Logistic().fit(broken, np.append(agreed, np.ones(9, bool))).score(features), plain)


def test_best_cosines() -> None:
    """A label that no neighbour has is at best as near as the farthest neighbour."""
    similarity = np.full((2, 15), -np.inf, np.float32)
    similarity[0, :3] = [0.9, 0.8, 0.5]
    label = np.zeros((2, 15), int)
    label[0, 1] = 1
    proba = np.array([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]], np.float32)
    seen = Evidence(Inputs([""] * 2, proba), proba, proba[None], Neighbours(similarity, label, label))
    share, nearest, mean, same, lead = Logistic().features(seen)[0, 6:11]
    assert (share, nearest, same) == (0, np.float32(0.9), 0.5)
    assert mean == pytest.approx(2.2 / 3)
    assert lead == pytest.approx(-0.4)
