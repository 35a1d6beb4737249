"""How often handled requests are audited."""

from datetime import UTC, datetime, timedelta

import pytest

from tracer_serve.serving.audit_rate import UNKNOWN, Traffic, rate_in_force
from tracer_serve.storage.traces import Tally

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def hours(per_hour: int, n: int, **facts: int) -> list[tuple[datetime, Tally]]:
    """Return n hours of so many requests, up to noon."""
    tally = Tally(handled=per_hour // 2, deferred=per_hour - per_hour // 2, **facts)
    return [(NOON - timedelta(hours=k), tally) for k in range(n, 0, -1)]


@pytest.mark.parametrize(
    ("per_day", "audits"), [(10, 2.0), (50, 10.0), (200, 14.1), (10_000, 100.0), (1_000_000, 1_000.0)]
)
def test_auto_audits_the_root_of_the_traffic_and_never_more_than_a_fifth(per_day: int, audits: float) -> None:
    """Rate times handled requests is their square root, at least 10 a day, at most a fifth of them."""
    rate = rate_in_force("auto", Traffic(float(per_day)), NOON)
    assert rate * per_day == pytest.approx(audits, rel=0.01)


def test_traffic_is_extrapolated_from_what_was_seen() -> None:
    """Six hours of 100 requests are 2,400 a day, of which a version of coverage .5 handles 1,200."""
    assert Traffic.of(hours(100, 6), 0.5, NOON).handled_per_day == pytest.approx(1_200)
    assert Traffic.of([], 0.5, NOON) == Traffic(None, 0)
    assert rate_in_force("auto", Traffic(), NOON) == UNKNOWN


def test_the_budget_is_spread_and_never_exceeded() -> None:
    """Half the day's budget at noon lasts until midnight; a spent one stops audits; yesterday's are not counted."""
    found = Traffic.of(hours(100, 20, audits=5), 1.0, NOON)
    assert found.audits_today == 60
    assert found.handled_per_day is not None
    rate = rate_in_force(0.5, found, NOON, budget=160)
    assert rate * found.handled_per_day / 2 == pytest.approx(100)
    assert rate_in_force("auto", found, NOON, budget=60) == 0.0
    assert rate_in_force(0.01, found, NOON, budget=160) == 0.01


@pytest.mark.parametrize(("rate", "boosted"), [(0.05, 0.5), (0.01, 0.1), (0.8, 0.8), (0.0, 0.0)])
def test_evidence_multiplies_the_rate(rate: float, boosted: float) -> None:
    """Ten times as many audits, up to every second; a rate of 0 was meant, and more than half stays."""
    assert rate_in_force(rate, Traffic(), NOON, boosted=True) == pytest.approx(boosted)
