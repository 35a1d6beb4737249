"""The yardstick by which candidates are compared: how much traffic each could reach at alpha."""

import numpy as np

from tracer_serve.fit.candidate import Paths
from tracer_serve.gate.bounds import p_values
from tracer_serve.gate.sequence import Tally, path, threshold_grid


def reach(paths: Paths, alpha: float, delta: float) -> float:
    """Return the largest share of rows, best first, whose agreement is at least alpha with an exact bound at delta.

    A yardstick for comparing candidates, not a certificate: it looks at every threshold on the same rows.
    """
    return reached(paths, alpha, delta)[0]


def reached(paths: Paths, alpha: float, delta: float) -> tuple[float, float]:
    """Return `reach`, and the share of rows that the first stage answers at that threshold."""
    guarded = np.where(paths.eligible, paths.score, np.nan)
    grid = threshold_grid(path(guarded))
    tally = Tally.of(guarded, grid)
    n, k = tally.counts(np.ones_like(paths.agreed)), tally.counts(paths.agreed)
    passing = np.flatnonzero(p_values(k, n, alpha) <= delta)
    if not len(passing):
        return 0.0, 0.0
    loosest = passing[n[passing] == n[passing].max()][-1]  # where the first stage answers most
    is_first = np.zeros_like(paths.agreed)
    is_first[0] = True
    rows = paths.score.shape[1]
    return float(n[loosest] / rows), float(tally.counts(is_first)[loosest] / rows)
