"""One certificate over all classes: an exact-binomial fixed-sequence test (gate.md, sections 1 to 3).

With probability at least 1 - delta over the calibration draw, P(agree | accepted) >= alpha on traffic like the
calibration rows. Each threshold's p-value is exact given its counts, and the order of the tests is fixed without the
calibration labels, so a wrong certificate needs the first false null of the walk to be rejected: at most delta
(fixed-sequence testing: Angelopoulos et al., Learn then Test, arXiv 2110.01052).
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.fixed_sequence import accepts, path
from tracer_serve.gate.group_sample import group_facts, numbered, one_each
from tracer_serve.gate.pilot import draw_pilot, predict_agreement
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.gate.walk_result import Counted, WalkResult
from tracer_serve.types import Bools, Floats, Ints


def certify_marginal(rows: CalibrationRows, settings: GateSettings) -> Certificate:
    """Certify the loosest threshold that a walk from the most promising one reaches, over all classes together.

    Returns
    -------
    The certificate. Its ``lower_bound`` holds together with it, at one and the same delta. Where the walk passed its
    last threshold the test continues there with larger alpha, which gives the Clopper-Pearson bound. Where it stopped
    earlier, alpha is all that is proved, although the pointwise bound at the threshold may be a little above.
    """
    alpha, delta = settings.alpha, settings.tested_delta
    scores, agreed, guarded = np.asarray(rows.scores), np.asarray(rows.agreed, dtype=bool), rows.guarded
    group = numbered(rows.groups, len(rows))
    pilot, expected = _predictions(guarded, agreed, rows.predicted, group, alpha=alpha, delta=delta, seed=settings.seed)
    keep = ~pilot
    single = one_each(group[keep], settings.seed)
    tested = replace(rows, scores=guarded, agreed=agreed, predicted=expected, eligible=None).take(keep)
    counted = Counted.of(tested, single, settings)
    stated = {
        "alpha": alpha,
        "delta": settings.stated_delta,
        "mode": settings.mode,
        "basis": settings.basis,
        "spend": settings.spend,
        "index": settings.index,
        "attempt": settings.attempt,
        "rivals": settings.rivals,
        "pilot": int(pilot.sum()),
        **group_facts(group[keep]),
    }
    return _certificate(counted.finding(), path(scores[..., keep]), settings.min_coverage, stated)


def _certificate(found: WalkResult, unguarded: Floats, min_coverage: float, stated: dict[str, Any]) -> Certificate:
    """Make the certificate, abstaining if coverage is too low; `unguarded`: scores of all rows, shape (rows,)."""
    rows = len(unguarded)
    coverage = found.n / rows if found.passed else 0.0
    certified = found.passed and coverage >= min_coverage
    return Certificate(
        certified=certified,
        reason="coverage" if found.passed and not certified else found.reason,
        rows=rows,
        n=found.n,
        agreements=found.agreements,
        lower_bound=found.lower_bound,
        threshold=found.threshold if certified else math.inf,
        coverage=coverage,
        rows_needed=found.rows_needed,
        walk=found.walk,
        protected=found.protected,
        coverage_unguarded=float(accepts(unguarded, found.threshold).mean()) if rows else 0.0,
        **stated,
    )


def _predictions(
    scores: Floats, agreed: Bools, predicted: Floats | None, group: Ints, *, alpha: float, delta: float, seed: int
) -> tuple[Bools, Floats]:
    """Return the pilot rows (n,) and each stage's predicted agreement in the shape of the scores."""
    if predicted is not None:
        return np.zeros(scores.shape[-1], bool), np.asarray(predicted)
    pilot = draw_pilot(scores, group, alpha, delta, seed)
    stages = zip(np.atleast_2d(scores), np.atleast_2d(agreed), strict=True)
    return pilot, np.stack([predict_agreement(s, a, pilot) for s, a in stages]).reshape(scores.shape)
