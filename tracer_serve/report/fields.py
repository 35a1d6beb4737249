"""Which field of an answer keeps the others from being handled, and what leaving it out would give."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tracer_serve.config.fields import values_of
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.gating import handled_rows
from tracer_serve.gate.binomial import exact_interval
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import GateSettings
from tracer_serve.types import Bools, Ints, Labels


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field, over the calibration rows.

    Parameters
    ----------
    agreement : share of all rows on which it is the teacher's
    handled_agreement : of the handled rows; None if nothing is handled
    differs, alone : rows on which it differs from the teacher's, and on which it is the only field that does
    without : coverage that the gate would find on the same scores if the answer had all fields but this one; None for
        the only field. A fit without it, whose acceptor knows, may cover more
    gain : `without` minus the coverage of the whole answer
    """

    field: str
    agreement: float
    handled_agreement: float | None
    differs: int
    alone: int
    without: float | None
    gain: float | None


@dataclass(frozen=True, slots=True)
class ValueRow:
    """One value of a field, by the teacher's answer.

    Parameters
    ----------
    rows : with this value; for a tag, those that have it
    handled : of these
    recall, low, high : share of the rows that are deferred, or answered with this value, and its exact 95 % interval
    """

    field: str
    value: str
    rows: int
    handled: int
    recall: float
    low: float
    high: float


def field_rows(calibration: Calibration, found: Certificate, settings: GateSettings) -> tuple[FieldRow, ...]:
    """Return a row per field, the one whose absence gives most coverage first.

    Parameters
    ----------
    settings : as the certificate was asked for
    """
    fair, truth = calibration.paths.take(calibration.fair), calibration.truth[calibration.fair]
    codes = _codes(calibration.classes)
    same = {name: code[fair.top] == code[truth] for name, code in codes.items()}  # (s, n)
    seen = calibration.answered(found).take(calibration.fair)
    handled = handled_rows(found, calibration, seen)
    rows = []
    for name, agrees in same.items():
        others = np.all([np.ones_like(agrees), *(other for field, other in same.items() if field != name)], axis=0)
        right = codes[name][seen.top] == codes[name][truth]
        without = _without(calibration, others, settings) if len(same) > 1 else None
        rows.append(
            FieldRow(
                field=name,
                agreement=float(right.mean()) if len(right) else 0.0,
                handled_agreement=float(right[handled].mean()) if handled.any() else None,
                differs=int((~agrees[-1]).sum()),
                alone=int((~agrees[-1] & others[-1]).sum()),
                without=without,
                gain=None if without is None else without - found.handled_share,
            )
        )
    return tuple(sorted(rows, key=lambda row: -(row.gain or 0.0)))


def value_rows(classes: Labels, top: Ints, truth: Ints, handled: Bools) -> tuple[ValueRow, ...]:
    """Return a row per value of each field that the teacher gives, lowest recall first.

    Parameters
    ----------
    classes : the labels that `top` and `truth` index, shape (k,)
    """
    rows = []
    for (field, value), has in _has(classes).items():
        mine = has[truth]
        n, kept = int(mine.sum()), int((mine & (~handled | has[top])).sum())
        if n:
            low, high = exact_interval(np.array([kept]), np.array([n]))
            rows.append(ValueRow(field, value, n, int((mine & handled).sum()), kept / n, float(low[0]), float(high[0])))
    return tuple(sorted(rows, key=lambda row: (row.recall, -row.rows)))


def _without(calibration: Calibration, agreed: Bools, settings: GateSettings) -> float:
    rows = calibration.rows()
    return certify(replace(rows, agreed=agreed if rows.agreed.ndim > 1 else agreed[0]), settings).handled_share


def _codes(classes: Labels) -> Mapping[str, Ints]:
    """Return the value of each label, as a number, by field, shape (k,)."""
    values = [values_of(str(label)) for label in classes]
    names = sorted({name for value in values for name in value})
    return {
        name: np.unique([str(value.get(name)) for value in values], return_inverse=True)[1].astype(np.int64)
        for name in names
    }


def _has(classes: Labels) -> dict[tuple[str, str], Bools]:
    """Return which labels have a value, by field and value, shape (k,)."""
    found: dict[tuple[str, str], Bools] = {}
    for i, label in enumerate(classes):
        for name, value in values_of(str(label)).items():
            for one in value if isinstance(value, list) else [value]:
                said = str(one).lower() if isinstance(one, bool) else str(one)
                found.setdefault((name, said), np.zeros(len(classes), bool))[i] = True
    return found
