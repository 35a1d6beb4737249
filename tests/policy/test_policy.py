"""A served policy decides what the fitted estimators decide, whatever batch a text comes in."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.tasks import banking, write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.stage import gather
from tracer_serve.types import Evidence, Floats, Inputs, Labels, Text, Verdict

TOLERANCE = 1e-5  # of scores; float32 sums depend on the size of a batch by a hundredth of that
ROWS = 2_000
BLEND = {"type": "blend", "members": ["logreg", "knn", "ngram_svc"]}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A blend and the default acceptor on the shipped traces, as it leaves the fit."""
    folder = tmp_path_factory.mktemp("policy")
    task = write_task(folder, rows=600, surrogates=[BLEND], acceptors=["logistic"], fit={"folds": 2})
    return fit_policy(task, Rows.of(*banking(600)), make_embedder(task)).policy


@pytest.fixture(scope="module")
def served(fitted: Policy, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The same policy as a worker has it: read from disk."""
    folder: Path = tmp_path_factory.mktemp("version") / "model"
    fitted.save(folder)
    return Policy.load(folder, fitted.view.embedder)


def traffic() -> list[Text]:
    """Thousands of texts between the known ones: halves of two of them."""
    texts, rng = banking()[0], np.random.default_rng(0)
    pairs = rng.integers(len(texts), size=(ROWS, 2))
    return [f"{texts[a][: len(texts[a]) // 2]} {texts[b][len(texts[b]) // 3 :]}" for a, b in pairs]


def by_hand(policy: Policy, texts: list[Text]) -> tuple[Labels, Floats]:
    """Labels and scores from the fitted estimators themselves, all rows at once."""
    (stage,) = policy.stages
    assert stage.acceptor is not None
    inputs = Inputs(texts, stage.view.embedder.embed(texts))
    seen: Evidence = gather(stage.surrogate, inputs, stage.view.index.query(inputs.embeddings))
    return policy.classes[seen.proba.argmax(axis=1)], stage.acceptor.score(stage.acceptor.features(seen))


def in_batches(policy: Policy, texts: list[Text]) -> list[Verdict]:
    """Decisions as a server makes them: one text here, thirty there."""
    rng, found, start = np.random.default_rng(1), list[Verdict](), 0
    while start < len(texts):
        size = int(rng.choice([1, 7, 33, 256]))
        found += policy.decide(texts[start : start + size])
        start += size
    return found


def test_a_served_version_decides_as_the_fitted_estimators(fitted: Policy, served: Policy) -> None:
    """Of thousands of rows every label is the same, every score within 1e-5, and so is who is handled."""
    texts = traffic()
    labels, scores = by_hand(fitted, texts)
    verdicts = in_batches(served, texts)
    found = np.array([verdict.score for verdict in verdicts])
    np.testing.assert_allclose(found, scores, atol=TOLERANCE)
    near_tie = [np.diff(np.sort(verdict.proba)[-2:])[0] < TOLERANCE for verdict in verdicts]
    assert np.mean(near_tie) < 0.01
    assert all(tie or v.label == label for tie, v, label in zip(near_tie, verdicts, labels, strict=True))
    threshold = fitted.certificate.threshold
    clear = np.abs(scores - threshold) > TOLERANCE
    whole = fitted.score(texts)
    handled = np.array([verdict.handled for verdict in verdicts])
    clear &= np.abs(whole.scope - fitted.stages[0].scope_threshold) > TOLERANCE
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(handled[clear], whole.handled[clear])
    assert not handled[clear & (scores < threshold)].any()
    assert 0.02 < handled.mean() < 0.98  # both kinds are there
