"""Segments: each kind of text has a certificate and a threshold of its own."""

from dataclasses import replace

import numpy as np
import pytest

from tests.gate.worlds import most_allowed
from tracer_serve.gate.certify import certify
from tracer_serve.gate.segments import segment_of_rows, segments_of, thresholds_of
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.gate.wording import promise_of
from tracer_serve.types import Text

GATE = GateSettings(alpha=0.9, delta=0.05, segments={"german": r"\b(der|die|das)\b", "short": r"^\S+$"})


def mixed(rng: np.random.Generator, n: int, german: float = 0.5) -> CalibrationRows:
    """Half of the rows are german and agree at the given rate, a fiftieth is short, the others agree at .97."""
    kind = rng.random(n)
    segment = np.select([kind < 0.5, kind < 0.52], ["german", "short"], "other")
    agreed = rng.random(n) < np.where(segment == "german", german, 0.97)
    return CalibrationRows(rng.random(n), agreed, segments=segment)


def test_a_text_belongs_to_the_first_pattern_it_matches() -> None:
    """Patterns are tried in order, a pair by either side; the rest is other."""
    texts: list[Text] = ["wo ist die Karte", "die", "Karte", "where is it", ("where", "ist das so")]
    assert segments_of(texts, GATE.segments).tolist() == ["german", "german", "short", "other", "german"]


def test_a_segment_without_evidence_defers_and_the_others_answer() -> None:
    """A segment under alpha and one with too few rows are deferred; on average over all rows nothing would certify."""
    rows = mixed(np.random.default_rng(0), 2000)
    found = certify(rows, GATE)
    table = {row.name: row for row in found.segments}
    assert found.certified
    assert [table[name].certified for name in ("german", "short", "other")] == [False, False, True]
    assert table["short"].reason == "insufficient"
    assert 0.4 < found.coverage < 0.5
    assert "in each certified segment" in promise_of(found)
    assert not certify(rows, replace(GATE, segments={})).certified
    texts = ["die Karte", "hello", "where is it"]
    thresholds = thresholds_of(found, np.array(["a"]), np.zeros(3, int), segment_of_rows(found, texts))
    assert thresholds.tolist() == [np.inf, np.inf, table["other"].threshold]


def test_segments_share_delta() -> None:
    """59 agreements certify a single segment at .95; with two more to test, each needs n_min at a third of delta."""
    rows = CalibrationRows(np.zeros(59), np.ones(59, bool), np.ones(59), segments=np.full(59, "other"))
    asked = replace(GATE, alpha=0.95)
    assert certify(rows, replace(asked, segments={})).certified
    assert certify(rows, asked).reason == "insufficient"


def test_protected_labels_hold_in_each_segment() -> None:
    """A label that is lost in one segment only closes that segment; its rows there count as kept."""
    rng = np.random.default_rng(1)
    segment, hate = np.where(np.arange(3000) % 2, "german", "other"), rng.random(3000) < 0.1
    rows = CalibrationRows(
        rng.random(3000), ~(hate & (segment == "german")), truth=np.where(hate, "hate", "no"), segments=segment
    )
    found = certify(rows, GateSettings(alpha=0.8, segments={"german": "x"}, protect={"hate": 0.9}))
    assert [(row.name, row.certified) for row in found.segments] == [("german", False), ("other", True)]
    assert found.protected[0].kept == found.protected[0].rows


def test_segments_are_needed_for_a_certificate_per_segment() -> None:
    """Rows that do not say their segment are refused."""
    with pytest.raises(ValueError, match="needs the segment"):
        certify(CalibrationRows(np.zeros(100), np.ones(100, bool)), GATE)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [True, False])
def test_no_segment_is_handled_under_alpha(apart: bool) -> None:
    """A segment just under alpha is handled in at most delta of the draws; without segments the average hides it."""
    rng, wrong = np.random.default_rng(2), 0
    for seed in range(600):
        rows = mixed(rng, 1500, german=0.899)
        found = certify(rows, replace(GATE, seed=seed) if apart else replace(GATE, seed=seed, segments={}))
        wrong += next(row.certified for row in found.segments if row.name == "german") if apart else found.certified
    assert (wrong <= most_allowed(0.05, 600)) is apart
