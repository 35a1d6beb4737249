"""Select stored rows that are a fair sample of traffic (gate.md, section 5)."""

from tracer_serve.types import Bools, Floats


def calibration_rows(rate: Floats, accepted: Bools, audited: Bools, labelled: Bools, u: Floats) -> Bools:
    """Return the rows that are an i.i.d. sample of traffic within each epoch; all labelled rows may train.

    A row is drawn with the probability `rate` that was in force when it was decided, whatever was decided: an
    accepted row by its audit (audited where u < rate), a deferred row by the same draw. Where everything was labelled
    by design, before the first version, after an abstention, while the gate is closed, and for imported rows, the rate
    in force is 1 and every row stays. Whether an epoch merely *happens* to be fully labelled must not count: an epoch
    of three deferred rows is so because they were hard. The rate may change within an epoch, also on the monitor's
    evidence, since it never depends on the row itself.

    Parameters
    ----------
    rate : audit rate in force, shape (n,)
    accepted : whether the version's gate accepted the row, shape (n,)
    audited : whether the row was sent to the teacher as an audit, shape (n,)
    labelled : whether a teacher's label is known, shape (n,)
    u : the row's draw from U(0, 1), made once, independent of the content, shape (n,)

    Returns
    -------
    Boolean mask, shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> yes, no = np.array([True]), np.array([False])
    >>> [bool(calibration_rows(np.array([0.1]), no, no, yes, np.array([u]))[0]) for u in (0.05, 0.5)]
    [True, False]
    """
    drawn: Bools = labelled & (u < rate) & (audited | ~accepted)
    return drawn
