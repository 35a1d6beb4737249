"""What lies beyond the calibrated inputs is deferred with its reason."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.foreign_texts import foreign_texts
from tests.support.tasks import banking, write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.policy.input_range import InputRange, longest_of
from tracer_serve.policy.policy import Policy

TEXTS, LABELS = banking(700)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    gate = {"alpha": 0.6, "delta": 0.2, "families": ["global"], "min_coverage": 0.01}
    task = write_task(tmp_path_factory.mktemp("task"), rows=600, gate=gate, fit={"folds": 3})
    found = fit_policy(task, Rows.of(TEXTS[:600], LABELS[:600]), make_embedder(task)).policy
    assert found.certificate.certified  # all is accepted: only the guards defer
    return found


def test_foreign_texts_are_out_of_scope(policy: Policy) -> None:
    """Of 200 texts in four languages at most 2 % are handled, while own texts are."""
    reasons = policy.score(foreign_texts()).reason
    assert (reasons == "certified").sum() <= 4
    assert {*reasons} <= {"certified", "out_of_scope"}
    assert policy.score(TEXTS[600:]).handled.mean() > 0.9


def test_texts_longer_than_the_calibrated_ones_are_too_long(policy: Policy) -> None:
    """Known sentences one after the other are familiar in every word, and deferred."""
    longest = max(len(text) for text in TEXTS[:600])
    long = [" ".join(TEXTS[i : i + 12]) for i in range(0, 600, 12)]
    assert all(len(text) > longest for text in long)
    assert {*policy.score(long).reason} == {"too_long"}
    assert policy.too_long(TEXTS[:600]).sum() == 0


def test_the_range_is_kept_with_the_version(policy: Policy, tmp_path: Path) -> None:
    """A policy that was read back defers the same texts for the same reasons."""
    policy.save(tmp_path / "model")
    again = Policy.load(tmp_path / "model", policy.view.embedder)
    texts = [*foreign_texts()[:20], " ".join(TEXTS[:30]), *TEXTS[600:620]]
    assert again.score(texts).reason.tolist() == policy.score(texts).reason.tolist()
    save_component(policy.inputs, tmp_path / "range")
    assert load_component(InputRange, tmp_path / "range").longest == policy.inputs.longest


def test_one_huge_text_lets_no_other_long_text_pass() -> None:
    """The length covers 99.9 % of the texts: all of few, all but the longest of many."""
    assert longest_of(["aa", "aaa"]) == 3
    assert longest_of(["aa"] * 1999 + ["a" * 10_000]) == 2
    assert longest_of([]) == -1
    assert not InputRange().compare(["a" * 10_000]).too_long.any()
    assert np.array_equal(InputRange().fit(["aa", ("a", "bb")]).compare(["aaa", ("aa", "bb")]).too_long, [False, True])
