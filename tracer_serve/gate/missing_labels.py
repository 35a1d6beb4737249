"""Correct for missing labels: a teacher that times out on long texts labels mostly short ones.

Labelled rows are thinned until every band of lengths has its share of the traffic. The rest is a fair sample if a
label's absence depends on the text's length only. Refusals of certain contents are not detected.
"""

import numpy as np

from tracer_serve.types import Bools, Floats, Ints

_BANDS, _SUSPECT, _FEWEST = 10, 0.01, 20


def evened(labelled: Floats, missing: Floats, seed: int = 0) -> Bools:
    """Mark labelled rows that are a fair sample of all rows, shape (n,); all of them if labels are missing at random.

    Parameters
    ----------
    labelled : length of each labelled row, shape (n,)
    missing : length of each row that was drawn and has no label, shape (m,)

    Examples
    --------
    >>> labelled, missing = np.repeat([10.0, 90.0], [600, 300]), np.full(300, 90.0)
    >>> kept = evened(labelled, missing)
    >>> int(kept[600:].sum()), bool(kept[:600].mean() < 0.6)
    (300, True)
    """
    everything = np.ones(len(labelled), bool)
    if len(missing) < _FEWEST or not len(labelled):
        return everything
    edges = np.unique(np.quantile(np.concatenate([labelled, missing]), np.arange(1, _BANDS) / _BANDS))
    band = np.searchsorted(edges, labelled, side="left")
    counts = np.stack(
        [np.bincount(part, minlength=len(edges) + 1) for part in (band, np.searchsorted(edges, missing, side="left"))]
    )
    filled = counts.sum(axis=0) > 0
    if filled.sum() < 2 or not _differ(counts[:, filled]):  # noqa: PLR2004
        return everything
    answered = np.where(filled, counts[0] / np.maximum(1, counts.sum(axis=0)), 1.0)
    least = answered[counts[0] > 0].min()
    kept: Bools = np.random.default_rng(seed).random(len(labelled)) * answered[band] < least
    return kept


def _differ(counts: Ints) -> bool:
    """Return whether the share of missing labels differs between bands, by Pearson's chi-squared test."""
    from scipy.stats import chi2_contingency  # noqa: PLC0415  # as in `gate.binomial`

    return bool(chi2_contingency(counts).pvalue < _SUSPECT)
