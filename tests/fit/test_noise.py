"""How far a teacher agrees with itself, and why nothing certifies."""

from pathlib import Path

import numpy as np
import pytest

from tests.fit.test_pipeline import planted
from tests.support.tasks import Planted, write_task
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.teacher_noise import TeacherNoise, duplicate_noise
from tracer_serve.gate.certificate import Certificate


def test_the_interval_covers_the_truth() -> None:
    """The exact interval holds the true agreement in at least 95 % of draws, and the ceiling its best surrogate's."""
    rng = np.random.default_rng(0)
    consistency, asked = 0.9, 200
    truth = consistency**2 + (1 - consistency) ** 2  # two answers of a teacher that slips one time in ten
    inside = reached = 0
    for _ in range(400):
        noise = TeacherNoise(asked, int(rng.binomial(asked, truth)))
        low, high = noise.interval()
        inside += low <= truth <= high
        reached += consistency <= noise.ceiling()
    assert inside >= 0.95 * 400 - 3 * np.sqrt(400 * 0.05 * 0.95)
    assert reached >= inside


@pytest.mark.parametrize(("agreed", "alpha", "forbidden"), [(200, 0.99, False), (160, 0.95, True), (160, 0.85, False)])
def test_alpha_out_of_reach_is_said(agreed: int, alpha: float, forbidden: bool) -> None:
    """Alpha is refused only where even the upper end of the interval lets no surrogate reach it."""
    noise = TeacherNoise(200, agreed)
    assert noise.forbids(alpha) is forbidden
    assert ("no surrogate can agree" in noise.sentence(alpha)) is forbidden
    assert TeacherNoise.from_json(noise.to_json()) == noise


def test_duplicates_are_a_replay_for_free() -> None:
    """Each text that stands in the traces again counts once, by whether its first two labels agree."""
    noise = duplicate_noise(["a b", "B a!", "a b", "c", "d", "D"], np.array(["x", "x", "y", "x", "x", "y"]))
    assert (noise.asked, noise.agreed, noise.source) == (2, 1, "duplicates")
    assert duplicate_noise(["a"], np.array(["x"])).interval() == (0.0, 1.0)


def abstained(folder: Path, rows: Rows, noise: TeacherNoise | None = None, alpha: float = 0.95) -> Certificate:
    task = write_task(folder, gate={"alpha": alpha, "delta": 0.05, "scope": {"keep": 1.0}})
    found = fit_policy(task, rows, Planted(), noise=noise).certificate
    assert not found.certified
    return found


def coin_flips(n: int = 800) -> Rows:
    """Rows whose label has nothing to do with the vector."""
    rows = planted(n)
    return Rows.of(rows.texts, np.random.default_rng(2).choice(["a", "b"], n))


def test_too_few_rows_is_said_with_how_many(tmp_path: Path) -> None:
    """Forty perfect rows lack rows and nothing else."""
    why = abstained(tmp_path, planted(40, noise=0.0)).diagnosis
    assert why is not None
    assert why.cause == "rows"
    assert why.numbers["rows_needed"] > 0
    assert f"{why.numbers['rows_needed']:,.0f} more" in why.sentence


@pytest.mark.parametrize(
    ("noise", "cause"),
    [(None, "representation"), (TeacherNoise(200, 199), "representation"), (TeacherNoise(200, 110), "teacher")],
)
def test_labels_that_no_vector_shows(tmp_path: Path, noise: TeacherNoise | None, cause: str) -> None:
    """Where a surrogate sees nothing it is the representation if the teacher repeats itself, and the teacher if not."""
    why = abstained(tmp_path, coin_flips(), noise).diagnosis
    assert why is not None
    assert why.cause == cause
    assert ("--teacher-noise" in why.sentence) is (noise is None)
    assert ("teacher_agreement" in why.numbers) is (noise is not None)


def test_duplicates_speak_where_nobody_asked(tmp_path: Path) -> None:
    """A store full of texts with two labels accuses the teacher without a replay."""
    rows = coin_flips(400)
    twice = Rows.of([*rows.texts, *rows.texts], np.concatenate([rows.labels, np.roll(rows.labels, 7)]))
    why = abstained(tmp_path, twice).diagnosis
    assert why is not None
    assert (why.cause, why.numbers["teacher_pairs"]) == ("teacher", 400)


def partly_easy(n: int, easy: float, known: float) -> Rows:
    """A share of clear rows that the teacher labels as they look; of the others it does so on a share."""
    rng = np.random.default_rng(3)
    label, clear = rng.integers(0, 4, n), rng.random(n) < easy
    hardness = np.where(clear, 0.05 * rng.random(n), 0.35 + 0.05 * rng.random(n))
    kept = clear | (rng.random(n) < known)
    texts = [f"{y} {h:.6f} {i}" for i, (y, h) in enumerate(zip(label, hardness, strict=True))]
    return Rows.of(texts, [f"label{(y + (0 if k else 2)) % 4}" for y, k in zip(label, kept, strict=True)])


def test_a_corner_of_the_traffic_is_refused_as_too_weak(tmp_path: Path) -> None:
    """Where an eighth of the traffic certifies and no more, nothing is served, and the verdict says so with numbers."""
    found = abstained(tmp_path, partly_easy(3000, 0.13, 0.6))
    why, numbers = found.diagnosis, {} if found.diagnosis is None else found.diagnosis.numbers
    assert (found.reason, why.cause if why else None) == ("coverage", "representation")
    assert 0.08 < numbers["certified_coverage"] < 0.2
    assert numbers["agreement_where_safest"] > 0.95 > numbers["agreement_at_least_coverage"]
    assert f"{100 * found.coverage:.1f} % of the traffic, reach alpha 0.95" in why.sentence if why else False
    assert "the safest 25.0 % that would be worth serving" in why.sentence if why else False


def test_a_corner_that_grows_with_the_rows_is_no_weakness(tmp_path: Path) -> None:
    """Where the share that is worth serving agrees often enough, but not surely, more rows are asked for."""
    gate = {"alpha": 0.95, "delta": 0.05, "min_coverage": 0.65, "scope": {"keep": 1.0}}
    found = fit_policy(write_task(tmp_path, gate=gate), partly_easy(400, 0.5, 0.85), Planted()).certificate
    assert found.reason == "coverage"
    assert found.diagnosis is not None
    assert (found.diagnosis.cause, found.diagnosis.numbers["rows_needed"] > 0) == ("rows", True)
    assert f"Bring about {found.diagnosis.numbers['rows_needed']:,.0f} more." in found.diagnosis.sentence


def test_what_certifies_needs_no_diagnosis(tmp_path: Path) -> None:
    """A certificate that holds carries none."""
    task = write_task(tmp_path, gate={"alpha": 0.8, "delta": 0.05})
    assert fit_policy(task, planted(600), Planted()).certificate.diagnosis is None
