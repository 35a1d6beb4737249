"""Agreement per predicted class: table, class floor, and a certificate per class (gate.md, section 7)."""

import math
from dataclasses import replace

import numpy as np

from tracer_serve.gate.binomial import lower_bounds
from tracer_serve.gate.certificate import Certificate, ClassRow
from tracer_serve.gate.fixed_sequence import accepts
from tracer_serve.gate.marginal import certify_marginal
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats, Ints, Labels


def with_class_table(
    certificate: Certificate, answers: Labels, scores: Floats, agreed: Bools, eligible: Bools | None = None
) -> Certificate:
    """Add the per-class table to a marginal certificate, worst lower bound first.

    Parameters
    ----------
    answers : the surrogate's label per calibration row, shape (n,); the others as for `certify`
    """
    accepted = accepts(scores, certificate.threshold) & (True if eligible is None else eligible)
    names, code = np.unique(answers, return_inverse=True)
    rows = np.bincount(code, minlength=len(names))
    n = np.bincount(code[accepted], minlength=len(names))
    k = np.bincount(code[accepted & agreed], minlength=len(names))
    bounds = lower_bounds(k, n, certificate.delta)
    table = [
        ClassRow(str(name), int(rows[i]), int(n[i]), int(k[i]), float(bounds[i]), certificate.threshold)
        for i, name in enumerate(names)
    ]
    return replace(certificate, classes=_worst_first(table))


def class_floor(answers: Ints, agreed: Bools, classes: int, *, floor: float, delta: float) -> Bools:
    """Return which classes have a Clopper-Pearson lower bound of their out-of-fold agreement above the floor.

    Parameters
    ----------
    answers : index of the predicted class of each training row, shape (n,)
    agreed : whether the teacher agreed, shape (n,)
    classes : number of classes

    Returns
    -------
    Shape (classes,); the other classes are deferred before the certificate.
    """
    n = np.bincount(answers, minlength=classes)
    k = np.bincount(answers[agreed], minlength=classes)
    passes: Bools = lower_bounds(k, n, delta) > floor
    return passes


def floor_eligible(answers: Ints, agreed: Bools, fold: Ints, classes: int, *, floor: float, delta: float) -> Bools:
    """Return which rows pass the class floor of the other folds, shape (n,), for a cross-fitted certificate.

    The served policy takes `class_floor` of all rows; a row's own label must not decide whether it is counted.
    """
    eligible = np.zeros(len(answers), bool)
    for held_out in np.unique(fold):
        test = fold == held_out
        eligible[test] = class_floor(answers[~test], agreed[~test], classes, floor=floor, delta=delta)[answers[test]]
    return eligible


def certify_per_class(rows: CalibrationRows, settings: GateSettings) -> Certificate:
    """Certify each predicted class by itself (Mondrian): one certificate per class, each wrong with probability delta.

    Each class's agreement, hence also the agreement over any mixture of certified classes, is at least alpha unless
    one of their certificates is wrong; that some certificate of K classes is wrong has probability up to K delta.

    Parameters
    ----------
    rows : of a policy with a single stage, with `answers`

    Returns
    -------
    One certificate over all: ``n``, ``agreements`` and ``coverage`` sum over the certified classes, ``lower_bound`` is
    the smallest of theirs, ``rows_needed`` the least number of traffic rows after which one class more could pass.

    Raises
    ------
    ValueError
        If the rows have no answers.
    """
    if rows.answers is None:
        raise ValueError("a certificate per class needs the surrogate's answers")
    each, names = replace(settings, min_coverage=0.0), np.unique(rows.answers)
    found = {str(name): certify_marginal(rows.take(rows.answers == name), each) for name in names}
    summary = next(iter(found.values()), None) or certify_marginal(rows, each)
    whole = merged(summary, found, len(rows), settings.min_coverage)
    return replace(whole, per_class=True, classes=_worst_first([_row(name, one) for name, one in found.items()]))


def class_thresholds(certificate: Certificate, classes: Labels) -> Floats:
    """Return the least handled score of each of the policy's classes, +inf if nothing is handled, shape (k,)."""
    if not certificate.certified or not certificate.per_class:
        return np.full(len(classes), certificate.threshold if certificate.certified else math.inf)
    of = {row.label: row.threshold for row in certificate.classes}
    return np.array([of.get(str(name), math.inf) for name in classes], dtype=np.float64)


def merged(common: Certificate, found: dict[str, Certificate], rows: int, min_coverage: float) -> Certificate:
    """Merge the certificates of parts of the rows; shared fields are taken from `common`."""
    passed = [one for one in found.values() if one.certified]
    certificate_rows = sum(one.rows for one in found.values())
    coverage = sum(one.n for one in passed) / max(1, certificate_rows)
    certified = bool(passed) and coverage >= min_coverage
    reasons = {one.reason for one in found.values()}
    worst = next((reason for reason in ("disagreement", "recall", "insufficient") if reason in reasons), common.reason)
    needed = [math.ceil(one.rows_needed * rows / one.rows) for one in found.values() if one.rows_needed and one.rows]
    return replace(
        common,
        certified=certified,
        reason="certified" if certified else "coverage" if passed else worst,
        rows=certificate_rows,
        n=sum(one.n for one in passed),
        agreements=sum(one.agreements for one in passed),
        lower_bound=min((one.lower_bound for one in passed), default=0.0),
        threshold=min((one.threshold for one in passed), default=math.inf) if certified else math.inf,
        coverage=coverage,
        rows_needed=0 if passed else min(needed, default=common.rows_needed),
        walk=(),
        coverage_unguarded=sum(one.coverage_unguarded * one.rows for one in passed) / max(1, certificate_rows),
        pilot=sum(one.pilot for one in found.values()),
        groups=sum(one.groups for one in found.values()),
        largest_group=max((one.largest_group for one in found.values()), default=0),
        effective_rows=sum(one.effective_rows for one in found.values()),
    )


def _row(name: str, one: Certificate) -> ClassRow:
    numbers = one.rows, one.n, one.agreements, one.lower_bound, one.threshold
    return ClassRow(name, *numbers, certified=one.certified, reason=one.reason, rows_needed=one.rows_needed)


def _worst_first(table: list[ClassRow]) -> tuple[ClassRow, ...]:
    return tuple(sorted(table, key=lambda row: (row.lower_bound, row.label)))
