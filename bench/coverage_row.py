"""Coverage and agreement of one system."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data import Dataset
from tracer_serve.types import Bools, Labels

_FEWEST = 20  # handled rows below which a class's agreement is noise


@dataclass(frozen=True, slots=True)
class Row:
    """One system at one alpha on one draw of traces.

    Parameters
    ----------
    coverage : share of the test rows that is handled
    agreement : share of those on which the teacher agrees; None if nothing is handled
    worst_class : least such share over the given labels with at least 20 handled rows
    certified_coverage : coverage in the certificate; None for the peer, which states it for other rows
    oos_accepted : share of out-of-scope inputs that is handled; None if the dataset has none
    first_share : share of the test rows that a cascade's first stage handles; None if there is one stage
    cpu_s, peak_mb : of the fit, in its own process
    """

    system: str
    dataset: str
    teacher: str
    traces: int
    draw: int
    noise: float
    alpha: float
    delta: float
    scope_keep: float | None
    coverage: float
    agreement: float | None
    worst_class: float | None
    certified_coverage: float | None
    oos_accepted: float | None
    cpu_s: float
    peak_mb: float
    first_share: float | None = None


def judge(given: Labels, handled: Bools, foreign: Bools, truth: Labels, **facts: Any) -> Row:
    """Compare the given labels (n,) with the teacher's on what is handled (n,); `foreign` (m,) = handled as well."""
    right = given == truth
    classes = [right[handled & (given == label)] for label in np.unique(given[handled])]
    shares = [float(rows.mean()) for rows in classes if len(rows) >= _FEWEST]
    return Row(
        coverage=float(handled.mean()),
        agreement=float(right[handled].mean()) if handled.any() else None,
        worst_class=min(shares, default=None),
        oos_accepted=float(foreign.mean()) if len(foreign) else None,
        **facts,
    )


def facts_of(data: Dataset) -> dict[str, Any]:
    """Return what the rows of a dataset have in common."""
    return {"dataset": data.name, "teacher": data.teacher, "traces": len(data.train), "draw": 0, "noise": 0.0}
