"""Measurements of one system of `bench.serving` under one load."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median

from bench.load import Load, put
from bench.servers import Server


@dataclass(frozen=True, slots=True)
class Row:
    """One system under one load; the median of the rounds.

    Parameters
    ----------
    rps_low, rps_high : least and most of the rounds
    cpu_us : CPU of all its processes per answer
    start_s : from the start of the process to the first answer
    """

    system: str
    clients: int
    rps: float
    rps_low: float
    rps_high: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    peak_mb: float
    start_s: float
    errors: int
    rounds: int
    day: str


@dataclass(frozen=True, slots=True)
class Measured:
    """System under measurement: a server with its requests, or the encoder in a loop."""

    measure: Callable[[int, float], Row]
    stop: Callable[[], None]


def asked(system: str, server: Server, path: str, bodies: Sequence[str]) -> Measured:
    """Return a server as something to measure."""

    def measure(clients: int, seconds: float) -> Row:
        before = server.cpu_s
        met = put(Load(server.port, path, bodies, clients, seconds))
        cpu_us = 1e6 * (server.cpu_s - before) / max(1, met.all)
        row = row_of(system, clients, met.rps, p50=met.p50_ms, p99=met.p99_ms, cpu_us=cpu_us)
        return replace(row, errors=met.errors, peak_mb=server.peak_mb, start_s=server.start_s)

    return Measured(measure, server.stop)


def row_of(system: str, clients: int, rps: float, *, p50: float, p99: float, cpu_us: float) -> Row:
    """Return one measurement as a row."""
    day = datetime.now(UTC).date().isoformat()
    return Row(system, clients, rps, rps, rps, p50, p99, cpu_us, 0.0, 0.0, 0, 1, day)


def middle(rows: Sequence[Row], system: str) -> Row:
    """Return the median of the rounds under a name."""

    def of(field: str) -> float:
        return float(median(getattr(row, field) for row in rows))

    rps = [row.rps for row in rows]
    return replace(
        rows[-1],
        system=system,
        rps=of("rps"),
        rps_low=min(rps),
        rps_high=max(rps),
        p50_ms=of("p50_ms"),
        p99_ms=of("p99_ms"),
        cpu_us=of("cpu_us"),
        errors=sum(row.errors for row in rows),
        rounds=len(rows),
    )
