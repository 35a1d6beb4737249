"""Worlds in which traffic changes or certificates are tried again: drift, a run of nights, repairs after an alarm."""

from collections.abc import Callable

import numpy as np

from bench.worlds import ALPHA, DELTA, Draw, Rng, World, handles
from tracer_serve.fit.folds import newest_holdout
from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.certify import certify
from tracer_serve.gate.drift_window import since_drop
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats, Ints

_UNDER = ALPHA - 0.001
_NIGHTS, _ROWS, _A_DAY = 60, 1000, 50
_REPAIR_DAYS, _LABELS_A_DAY = 60, 200


def drift(
    variant: str,
    agreement: Callable[[Floats], Floats],
    rows: int = 3000,
    *,
    strict: bool = False,
    limit: float = DELTA,
) -> World:
    """Return a window over which agreement falls below alpha and stays there.

    Parameters
    ----------
    agreement : P(agree) at a time between 0 and 1
    strict : `gate.mode: strict`, on a random fifth without the remedy
    limit : twice delta where the fall is so small that the window misses it often
    """

    def play(rng: Rng, remedy: bool) -> Draw:
        arrived, alone = np.arange(rows), np.arange(rows)
        agreed = rng.random(rows) < agreement(arrived / rows)
        if strict:
            seed = int(rng.integers(2**31))
            kept = newest_holdout(alone, np.ones(rows, bool), 0.2, seed, arrived if remedy else None)
            agreed, arrived = agreed[kept], arrived[kept]
        if remedy:
            agreed = agreed[_current(agreed, arrived)]
        handled, coverage = handles(rng, agreed)
        return Draw(float(handled), coverage)

    return World("drift", True, play, variant, limit)


def nights(variant: str, *, ever: bool, series: bool = False) -> World:
    """Return a task that refits every night on traffic just under alpha.

    Parameters
    ----------
    ever : count systems that ever serve a version; else the share of nights on which one serves
    series : ``gate.spend: series``; without the remedy ``per_version``
    """

    def play(rng: Rng, remedy: bool) -> Draw:
        agreed = rng.random(_ROWS + _NIGHTS * _A_DAY) < _UNDER
        serving: MonitorState | None = None
        served = 0
        for night in range(_NIGHTS):
            rows = _ROWS + night * _A_DAY
            settings = GateSettings(
                ALPHA, DELTA, seed=night, spend="series" if series and remedy else "per_version", index=night + 1
            )
            if certify(CalibrationRows(rng.random(rows), agreed[:rows]), settings).certified:
                serving = MonitorState(ALPHA, DELTA)
            elif remedy and serving is not None and serving.refuted:
                serving = None
            if serving is not None:
                served += 1
                audits = agreed[rows : rows + _A_DAY]
                serving = MonitorState(ALPHA, DELTA, serving.seen + len(audits), serving.agreements + int(audits.sum()))
        share = served / _NIGHTS
        return Draw(float(served > 0) if ever else share, share)

    return World("nights", True, play, variant, promised=series)  # per_version promises nothing about a run of nights


def repairs() -> World:
    """Return a gate that an alarm closed: 60 days of attempts on more and more rows, agreement just below alpha."""

    def play(rng: Rng, remedy: bool) -> Draw:
        since = rng.random(_REPAIR_DAYS * _LABELS_A_DAY) < _UNDER
        rows, attempt = 4 * n_min(ALPHA, DELTA), 1
        while rows <= len(since):
            used = since[:rows] if attempt % 2 else since[rows // 2 : rows]  # each second attempt: the newer half
            handled, coverage = handles(rng, used, attempt=attempt if remedy else 0)
            if handled:
                return Draw(1.0, coverage)
            rows, attempt = int(np.ceil(1.5 * rows)), attempt + 1
        return Draw(0.0, 0.0)

    return World("repairs", True, play)


def _current(agreed: Bools, arrived: Ints) -> Bools:
    return since_drop(agreed, np.ones_like(agreed), np.arange(len(agreed)), arrived, 4 * n_min(ALPHA, DELTA))


def _imports(time: Floats) -> Floats:
    return np.where(time < 5000 / 6800, 0.97, 0.93)


TIME_WORLDS = (
    drift("falls from .98 to .94", lambda t: 0.98 - 0.04 * t),
    drift("falls from .98 to .94, strict", lambda t: 0.98 - 0.04 * t, strict=True),
    drift("falls from .965 to .945", lambda t: 0.965 - 0.02 * t, limit=2 * DELTA),
    drift("drops from .97 to .93", lambda t: np.where(t < 0.7, 0.97, 0.93)),
    drift("5,000 old rows at .97, 1,800 new ones at .93", _imports, 6800),
    nights("share of nights", ever=False),
    nights("ever, spend: series", ever=True, series=True),
    repairs(),
)
