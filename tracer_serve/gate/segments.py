"""Segments: a certificate and a threshold for each kind of text (gate.md, section 13).

A text belongs to the first pattern that it matches, else to the rest. Each segment is certified on its own rows, and
one without enough evidence defers. The segments share delta equally: a version in which any certified segment breaks
its promise is certified with probability at most delta.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tracer_serve.gate.certificate import Certificate, ProtectedLabel, SegmentRow
from tracer_serve.gate.marginal import certify_marginal
from tracer_serve.gate.per_class import class_thresholds, merged
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Floats, Ints, Labels, Text, sides_of

OTHER = "other"
"""Segment of the texts that match no pattern."""


def segments_of(texts: Sequence[Text], patterns: Mapping[str, str]) -> Labels:
    r"""Return the segment of each text, shape (n,): the first pattern found in it, or in a side of a pair.

    Examples
    --------
    >>> segments_of(["Wo ist die Karte?", "Where is my card?"], {"german": r"(?i)\b(die|der|das)\b"}).tolist()
    ['german', 'other']
    """
    known = [(name, _compiled(pattern)) for name, pattern in patterns.items()]

    def one(text: Text) -> str:
        return next((name for name, found in known if any(map(found.search, sides_of(text)))), OTHER)

    return np.array([one(text) for text in texts], dtype=np.str_)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def certify_segments(rows: CalibrationRows, settings: GateSettings) -> Certificate:
    """Certify each segment by itself, at an equal part of delta each.

    Returns
    -------
    One certificate over all: ``n``, ``agreements`` and ``coverage`` sum over the certified segments, ``lower_bound`` is
    the smallest of theirs.

    Raises
    ------
    ValueError
        If the rows have no segments.
    """
    if rows.segments is None:
        raise ValueError("a certificate per segment needs the segment of each calibration row")
    names = [*settings.segments, OTHER]
    each = replace(settings, min_coverage=0.0, rivals=settings.rivals * len(names))
    found = {name: certify_marginal(rows.take(rows.segments == name), each) for name in names}
    table = tuple(_row(name, settings.segments.get(name, ""), one) for name, one in found.items())
    summary = replace(found[OTHER], rivals=settings.rivals)
    whole = merged(summary, found, len(rows), settings.min_coverage)
    return replace(whole, segments=table, protected=_protected(found))


def segment_of_rows(found: Certificate, texts: Sequence[Text]) -> Labels | None:
    """Return the segment of each text under a certificate; None if the certificate has no segments."""
    if not found.segments:
        return None
    return segments_of(texts, {row.name: row.pattern for row in found.segments if row.name != OTHER})


def thresholds_of(found: Certificate, classes: Labels, top: Ints, segment: Labels | None) -> Floats:
    """Return the least handled score of each answer, +inf if nothing is handled, in the shape of `top`.

    Parameters
    ----------
    classes : the labels that `top` indexes, shape (k,)
    top : the surrogate's label, shape (..., n)
    segment : segment of each text, shape (n,); needed where the certificate has segments
    """
    if not found.segments or not found.certified:
        return class_thresholds(found, classes)[top]
    of = {row.name: row.threshold for row in found.segments}
    least = np.array([of[str(name)] for name in ([] if segment is None else segment)], np.float64)
    return np.broadcast_to(least, np.shape(top))


def _row(name: str, pattern: str, one: Certificate) -> SegmentRow:
    return SegmentRow(
        name=name,
        pattern=pattern,
        rows=one.rows,
        n=one.n,
        agreements=one.agreements,
        lower_bound=one.lower_bound,
        threshold=one.threshold if one.certified else math.inf,
        certified=one.certified,
        reason=one.reason,
        rows_needed=one.rows_needed,
    )


def _protected(found: Mapping[str, Certificate]) -> tuple[ProtectedLabel, ...]:
    """Merge the protected labels of the segments; a segment that is not certified defers, and so keeps all its rows."""
    passed = [one for one in found.values() if one.certified]
    columns: Iterable[tuple[ProtectedLabel, ...]] = zip(*(one.protected for one in passed), strict=True)
    return tuple(
        ProtectedLabel(
            label=parts[0].label,
            required=parts[0].required,
            rows=sum(part.rows for part in parts),
            kept=sum(part.kept for part in parts),
            lower_bound=min(part.lower_bound for part in parts),
        )
        for parts in columns
    )
