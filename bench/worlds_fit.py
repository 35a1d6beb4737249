"""Worlds of the fit: training that is unstable, labels that are imbalanced, labels that are missing."""

from pathlib import Path

import numpy as np

from bench.worlds import ALPHA, Draw, Rng, World, handles
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.folds import newest_holdout, random_folds
from tracer_serve.fit.pipeline import all_stable
from tracer_serve.gate.certify import certify
from tracer_serve.gate.missing_labels import evened
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Floats, Ints

_FOLDS, _DELTA = 10, 0.05
_SHARE = np.array([0.40, 0.27, *np.full(8, 0.33 / 8)])
_RIGHT = np.array([0.90, 0.92, *np.full(8, 0.99)])


def unstable(variant: str, folds: float, refit: float, spread: float, rows: int) -> World:
    """Return a surrogate that does not declare itself stable, and whose refit differs from the models of its folds.

    Parameters
    ----------
    folds, refit : mean agreement of the models of folds, and of a model of more rows
    spread : standard deviation of the agreement from one training run to the next
    """
    spec = {"name": "bench", "teacher": "offline", "surrogates": ["encoder"]}
    crossed = all_stable(Task(Spec.model_validate(spec), Path("bench"), ""))

    def play(rng: Rng, remedy: bool) -> Draw:
        served = refit + spread * rng.standard_normal()
        if remedy and not crossed:
            held_out = newest_holdout(np.arange(rows), np.ones(rows, bool), 0.2, int(rng.integers(2**31)))
            agreed = rng.random(int(held_out.sum())) < served
        else:
            models = folds + spread * rng.standard_normal(_FOLDS)
            agreed = rng.random(rows) < models[random_folds(np.arange(rows), _FOLDS, 0)]
        handled, coverage = handles(rng, agreed)
        return Draw(float(handled and served < ALPHA), coverage)

    return World("unstable", True, play, variant)


def imbalance(rows: int = 10_000) -> World:
    """Return two labels that have two thirds of the traffic and most of the errors, beside eight easy rare ones.

    Without the remedy the calibration rows are balanced over the labels, as by stratified sampling.
    """

    def draw(rng: Rng, n: int) -> tuple[Ints, Floats, Floats]:
        label = rng.choice(len(_SHARE), n, p=_SHARE)
        hard = rng.random(n)
        right = 1 - (1 - _RIGHT[label]) * 2 * hard
        return label, 0.3 * (label > 1) - hard + 0.3 * rng.standard_normal(n), right

    fresh = draw(np.random.default_rng(1), 200_000)

    def play(rng: Rng, remedy: bool) -> Draw:
        label, score, right = draw(rng, rows)
        agreed, taken = rng.random(rows) < right, np.arange(rows)
        if not remedy:
            each = np.bincount(label).min()
            taken = np.concatenate([np.flatnonzero(label == one)[:each] for one in range(len(_SHARE))])
        settings = GateSettings(ALPHA, _DELTA, seed=int(rng.integers(2**31)))
        found = certify(CalibrationRows(score[taken], agreed[taken]), settings)
        handled = fresh[1] >= found.threshold
        wrong = found.certified and fresh[2][handled].mean() < ALPHA
        return Draw(float(wrong), float(handled.mean()) if found.certified else 0.0)

    return World("imbalance", True, play)


def missing(rows: int = 5000) -> World:
    """Return a teacher that errs more on long texts and more often gives no label for them; true agreement .948."""

    def play(rng: Rng, remedy: bool) -> Draw:
        length = rng.random(rows)
        agreed, lost = rng.random(rows) < 0.98 - 0.16 * length**4, rng.random(rows) < 0.8 * length**6
        kept = evened(length[~lost], length[lost], int(rng.integers(2**31))) if remedy else np.ones((~lost).sum(), bool)
        handled, coverage = handles(rng, agreed[~lost][kept])
        return Draw(float(handled), coverage)

    return World("missing", True, play)


FIT_WORLDS = (
    unstable("the refit exceeds a limit on rows", 0.97, 0.93, 0.0, 2000),
    unstable("training varies by .02", 0.96, 0.96, 0.02, 2000),
    unstable("training varies by .02, 10,000 rows", 0.96, 0.96, 0.02, 10_000),
    imbalance(),
    missing(),
)
