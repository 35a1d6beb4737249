"""The choice among candidates gains nothing from luck."""

from dataclasses import replace

import numpy as np
import pytest

from tracer_serve.fit.candidate import Candidate, CandidateStage, Paths, reach
from tracer_serve.fit.cross_fit import OutOfFold
from tracer_serve.fit.selection import Choice, Chooser, prices
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats, Ints

ALPHA, DELTA = 0.95, 0.05


def part(agreed: Bools, score: Floats, number: int = 0, cpu_ms: float = 1.0) -> CandidateStage:
    n = len(agreed)
    oof = OutOfFold(np.full(n, number), np.zeros(n, int), agreed, np.zeros(n), np.zeros(n, bool), (), cpu_ms)
    return CandidateStage(number, 0, oof, score, -np.inf, np.ones(n, bool))


def paths(agreed: Bools, score: Floats) -> Paths:
    return Candidate.single(part(agreed, score)).paths


def choose(parts: list[CandidateStage], fold: Ints, *, cascade: bool = False) -> tuple[Choice, Chooser]:
    chooser = Chooser(parts, fold, ALPHA, DELTA, cascade=cascade)
    return chooser.choose(np.ones(len(fold), bool)), chooser


def test_reach_is_the_share_that_passes() -> None:
    """With perfect agreement on the safer half and none below, just that half is in reach."""
    agreed = np.r_[np.ones(500, bool), np.zeros(500, bool)]
    found = paths(agreed, np.arange(1000)[::-1].astype(float))
    assert reach(found, ALPHA, DELTA) == pytest.approx(0.5, abs=0.02)


def test_reach_of_nothing_is_nothing() -> None:
    """NaN scores and ineligible rows are out of reach."""
    agreed = np.ones(100, bool)
    assert reach(paths(agreed, np.full(100, np.nan)), 0.9, DELTA) == 0.0
    barred = CandidateStage(0, 0, part(agreed, np.zeros(100)).oof, np.zeros(100), np.inf, agreed)
    assert reach(Candidate.single(barred).paths, 0.9, DELTA) == 0.0


def test_the_better_candidate_is_chosen() -> None:
    """A clearly better candidate wins in every fold and keeps its own scores."""
    rng = np.random.default_rng(0)
    n = 2000
    good, bad = part(rng.random(n) < 0.97, rng.random(n), 0), part(rng.random(n) < 0.8, rng.random(n), 1)
    choice, chooser = choose([bad, good], rng.integers(0, 5, n))
    assert choice.candidate.parts == (good,)
    fair = np.ones(n, bool)
    assert chooser.reach(choice.candidate, fair) > chooser.reach(Candidate.single(bad), fair)
    np.testing.assert_array_equal(choice.paths.score, good.score[None])


def specialists(n: int = 4000) -> list[CandidateStage]:
    """A cheap surrogate that knows the easy half and a dear one that knows all but a few: each where it is sure."""
    rng = np.random.default_rng(3)
    hardness = rng.random(n)
    cheap_score, dear_score = 1 - hardness, 1 - 0.5 * hardness
    cheap = part(rng.random(n) < np.where(hardness < 0.5, 0.99, 0.3), cheap_score, 0, cpu_ms=0.1)
    dear = part(rng.random(n) < np.where(hardness < 0.9, 0.99, 0.3), dear_score, 1, cpu_ms=5.0)
    return [dear, cheap]


def test_a_cascade_asks_the_cheap_one_first_and_loses_nothing() -> None:
    """The cascade's first stage answers about its half, and together they reach what the strong one does."""
    dear, cheap = specialists()
    fold = np.random.default_rng(0).integers(0, 5, 4000)
    choice, chooser = choose([dear, cheap], fold, cascade=True)
    fair = np.ones(4000, bool)
    assert choice.candidate.parts == (cheap, dear)
    assert chooser.reach(choice.candidate, fair) >= chooser.reach(Candidate.single(dear), fair) - 0.005
    found = certify(
        CalibrationRows(choice.paths.score, choice.paths.agreed),
        GateSettings(alpha=ALPHA, delta=DELTA, mode="cross_fit"),
    )
    assert found.certified
    stage = choice.paths.answering(np.full_like(choice.paths.score, found.threshold))
    assert 0.2 < (stage == 0).mean() < 0.6


def test_two_guards_keep_together_what_one_is_asked_to_keep() -> None:
    """A cascade's guards let the share pass that one guard would; each by itself lets less pass, and both as much."""
    rng, fold = np.random.default_rng(0), np.random.default_rng(1).integers(0, 5, 4000)
    dear, cheap = (replace(one, oof=replace(one.oof, scope=rng.normal(size=4000))) for one in specialists())
    chosen = Candidate.cascade(cheap, dear, fold, kept=0.5, keep=0.9)
    own = [np.mean(part.oof.scope >= guard) for part, guard in zip(chosen.parts, chosen.guards, strict=True)]
    assert own[0] == pytest.approx(own[1], abs=1e-3)
    assert own[0] < 0.85
    asked = cheap.score >= chosen.scales[0].least
    passes = (asked & (cheap.oof.scope >= chosen.guards[0])) | (dear.oof.scope >= chosen.guards[1])
    assert passes.mean() == pytest.approx(0.9, abs=1e-3)
    np.testing.assert_array_equal(
        chosen.paths.eligible,
        [part.oof.scope >= guard for part, guard in zip(chosen.parts, chosen.guards, strict=True)],
    )


def test_no_cascade_without_a_much_cheaper_surrogate() -> None:
    """Two surrogates of about the same price are no cascade, and neither is a cheap one that reaches nothing."""
    dear, cheap = specialists()
    fold = np.random.default_rng(0).integers(0, 5, 4000)
    same_price = part(cheap.oof.agreed, cheap.score, 0, cpu_ms=4.0)
    useless = part(np.zeros(4000, bool), cheap.score, 0, cpu_ms=0.1)
    for first in (same_price, useless):
        choice, _ = choose([dear, first], fold, cascade=True)
        assert choice.candidate.parts == (dear,)


def test_a_first_stage_that_spares_the_embedder_is_asked_first() -> None:
    """What embedding costs counts where two parts do not share it: a dearer prediction may be the cheaper stage."""
    dear, cheap = specialists()
    fold, fair = np.random.default_rng(0).integers(0, 5, 4000), np.ones(4000, bool)
    oof = replace(dear.oof, cpu_ms=0.1, embed_ms=4.0)
    same = replace(cheap, oof=replace(cheap.oof, cpu_ms=0.2, embed_ms=4.0))
    apart = replace(cheap, oof=replace(cheap.oof, cpu_ms=0.2, embed_ms=0.1, view=1))
    strong = replace(dear, oof=oof)
    assert choose([strong, same], fold, cascade=True)[0].candidate.parts == (strong,)
    choice, chooser = choose([strong, same, apart], fold, cascade=True)
    assert choice.candidate.parts == (apart, strong)
    assert prices([part.oof for part in choice.candidate.parts]) == [(0.2, 0.1), (0.1, 4.0)]
    assert prices([same.oof, strong.oof]) == [(0.2, 4.0), (0.1, 0.0)]
    assert chooser.candidates()[-1] is choice.candidate
    assert chooser.reach(choice.candidate, fair) >= chooser.reach(Candidate.single(strong), fair) - 0.005


def test_rows_of_different_candidates_share_one_path() -> None:
    """Where folds prefer different candidates each row keeps its own candidate's label, on the winner's scale."""
    rng = np.random.default_rng(5)
    n = 600
    pool = [part(rng.random(n) < 0.96, (10.0 ** (3 * i)) * rng.random(n), i) for i in range(8)]
    pool += specialists(n)
    choice, _ = choose(pool, rng.integers(0, 5, n), cascade=True)
    score = choice.paths.score
    of = np.where(np.isfinite(score), score, -np.inf)
    assert choice.paths.agreed.shape == choice.paths.top.shape == choice.paths.eligible.shape == score.shape
    assert np.isfinite(of.max(axis=0)).all()
    assert of.max() <= np.nanmax(choice.candidate.score)


@pytest.mark.slow
@pytest.mark.parametrize("naive", [False, True])
def test_choosing_the_luckiest_of_many_keeps_delta(naive: bool) -> None:
    """Twelve useless candidates just under alpha certify falsely at most as often as delta; naively, far more."""
    n, draws, false = 1500, 400, 0
    rng = np.random.default_rng(7)
    for _ in range(draws):
        fold = rng.integers(0, 5, n)
        pool = [part(rng.random(n) < ALPHA - 0.001, np.zeros(n), i) for i in range(12)]
        choice, _ = choose(pool, fold)
        agreed = choice.candidate.paths.agreed[0] if naive else choice.paths.agreed[0]
        rows = CalibrationRows(np.zeros(n), agreed, np.full(n, ALPHA))
        false += certify(rows, GateSettings(ALPHA, DELTA, rivals=1 if naive else len(pool))).certified
    limit = draws * DELTA + 3 * np.sqrt(draws * DELTA * (1 - DELTA))
    assert (false > limit) if naive else (false <= limit)
