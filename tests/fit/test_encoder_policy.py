"""An encoder in a policy: behind a cheap surrogate, strictly certified, on its disk, and gone on from."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tests.components.finetune.models import tiny_bert
from tests.support.tasks import write_task
from tracer_serve.components.surrogates.encoder import Encoder
from tracer_serve.config.load import Task
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Text, Vectors

pytestmark = pytest.mark.slow
_WORDS = ("rate", "of", "exchange", "fee", "limit", "branch", "date", "paper")


class Blurred:
    """Vectors that tell the pairs which say what they are, and nothing of the others."""

    trainable = False
    fingerprint = "blurred"

    def fit(self, texts: Sequence[Text]) -> Self:
        """Learn nothing."""
        del texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return unit vectors, shape (n, 6): a direction per word, and noise that is a text's own."""
        words = [str(text[0]).split()[0] for text in texts]
        noise = np.stack([np.random.default_rng(zlib.crc32(str(text).encode())).normal(size=6) for text in texts])
        out = np.stack([np.eye(6)[{"good": 0, "bad": 1}.get(word, 2)] for word in words]) + 0.05 * noise
        unit: Vectors = (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)
        return unit


def rows(n: int, seed: int = 0) -> Rows:
    """Pairs: half of them say what they are, of the others it counts whether both sides name the same letter."""
    rng = np.random.default_rng(seed)
    easy = rng.random(n) < 0.5
    left, right = rng.choice(list("abcd"), (2, n))
    right = np.where(rng.random(n) < 0.5, left, right)
    word = np.where(left == right, "good", "bad")
    # makes the encoder dear, whatever else this machine is at; words of a row's own, or the rows would be one burst
    long = [" ".join(row) for row in rng.choice(_WORDS, (n, 30))]
    texts = [
        (f"{word[i]} red number {seed}{i}", long[i])
        if easy[i]
        else (f"{left[i]} number {seed}{i}", f"{right[i]} {long[i]}")
        for i in range(n)
    ]
    return Rows.of(texts, np.where(left == right, "same", "other"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Nearest neighbours of n-grams, then the encoder."""
    folder = tmp_path_factory.mktemp("task")
    tuned = {"folder": str(tiny_bert(folder / "bert")), "learning_rate": 3e-3, "epochs": 25, "patience": 25}
    return write_task(
        folder,
        input="pair",
        surrogates=["knn", {"type": "encoder", "backend": "onnx", **tuned}],
        acceptors=["top1"],
        gate={"alpha": 0.9, "delta": 0.1, "mode": "strict", "families": ["l2d", "cascade"], "scope": {"keep": 1.0}},
        fit={"folds": 2},
    )


@pytest.fixture(scope="module")
def fitted(task: Task) -> Fitted:
    return fit_policy(task, rows(1500), Blurred())


def encoder_of(policy: Policy) -> Encoder:
    found = policy.surrogate
    assert isinstance(found, Encoder)
    return found


def test_what_frozen_vectors_cannot_tell_the_encoder_answers(fitted: Fitted) -> None:
    """Neighbours reach about half of the traffic; with the encoder much more is certified, and rightly."""
    alone = max(c.reach for c in fitted.candidates if c.surrogate == "knn")
    new = rows(1500, seed=7)
    seen = fitted.policy.score(new.texts)
    agreed = fitted.policy.classes[seen.top] == new.labels
    assert alone < 0.7
    assert fitted.certificate.certified
    assert seen.handled.mean() > alone + 0.1
    assert agreed[seen.handled].mean() >= 0.9 - 0.01


def test_its_stages_say_what_each_is_asked(fitted: Fitted) -> None:
    """Only what the cheap one leaves reaches the encoder, which costs more."""
    cheap, dear = fitted.certificate.stages
    assert (cheap.surrogate, dear.surrogate) == ("knn", "encoder")
    assert cheap.asked == 1.0
    assert dear.asked == pytest.approx(1.0 - cheap.share)
    assert 0.2 < dear.asked < 0.9


def test_the_next_version_goes_on_from_it(fitted: Fitted, task: Task, tmp_path: Path) -> None:
    """Read back it decides alike; the next fit takes over its weights and trains for fewer epochs."""
    fitted.policy.save(tmp_path / "model")
    probe = rows(50, seed=3).texts
    again = Policy.load(tmp_path / "model", Blurred())
    assert [v.label for v in again.decide(probe)] == [v.label for v in fitted.policy.decide(probe)]
    first, more = rows(1500), rows(300, seed=5)
    both = Rows.of([*first.texts, *more.texts], np.concatenate([first.labels, more.labels]))
    later = fit_policy(task, both, Blurred(), earlier=tmp_path / "model")
    before, after = encoder_of(fitted.policy), encoder_of(later.policy)
    assert np.isin(before.seen_, after.seen_).all()
    assert before.tuned_ is not None
    assert after.tuned_ is not None
    assert len(after.tuned_.agreement) == 2 < len(before.tuned_.agreement)
    assert after.tuned_.agreement[0] > before.tuned_.agreement[0]
    assert later.certificate.certified
