"""Convert traces to table rows and back."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic_core import to_json

from tracer_serve.storage.traces.codec import dump, pack, pack_some, parse, unpack, unpack_some
from tracer_serve.types import AuditKind, DecisionKind, LabelSource, Trace

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
HOUR_US = 3_600_000_000


def to_us(when: datetime) -> int:
    """Return microseconds since 1970.

    Raises
    ------
    ValueError
        If the time has no zone: it would differ between machines.
    """
    if when.tzinfo is None:
        raise ValueError(f"{when!r} has no time zone; use datetime.now(UTC)")
    return (when - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Return the time in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


class Row(NamedTuple):
    """One row of the table `schema.traces`, texts packed, fields in the order of its columns."""

    task: str
    id: str
    ts: int
    input: str
    teacher_label: str | None
    label_source: LabelSource | None
    surrogate_label: str | None
    score: float | None
    decision: DecisionKind | None
    propensity: float
    version: int | None
    audit_rate: float
    u: float
    teacher_fingerprint: str | None
    usage: str
    cost: float
    latency_ms: str
    metadata: str
    user_id: str | None
    form: str | None
    group_id: str | None
    key_id: str | None
    audit_kind: AuditKind | None


def to_row(trace: Trace) -> Row:
    """Return the row of a trace. A NaN score is stored as NULL, since SQLite has no NaN."""
    return Row(
        trace.task,
        trace.id,
        to_us(trace.ts),
        pack(trace.input),
        pack_some(trace.teacher_label),
        trace.label_source,
        pack_some(trace.surrogate_label),
        None if trace.score is None or math.isnan(trace.score) else float(trace.score),
        trace.decision,
        float(trace.propensity),
        None if trace.version is None else int(trace.version),
        float(trace.audit_rate),
        float(trace.u),
        pack_some(trace.teacher_fingerprint),
        dump(trace.usage),
        float(trace.cost),
        to_json(trace.latency_ms).decode(),  # keys need no order here, and this takes a third of `dump`'s time
        dump(trace.metadata),
        user_of(trace.metadata),
        pack_some(trace.form),
        pack_some(trace.group),
        pack_some(trace.key_id),
        trace.audit_kind,
    )


def user_of(metadata: dict[str, Any]) -> str | None:
    """Return the packed user of a row, by which `Users.forget` finds it."""
    user = metadata.get("user")
    return None if user is None else pack(str(user))


def from_row(row: Row) -> Trace:
    """Return the trace of a row."""
    return Trace(
        id=row.id,
        ts=from_us(row.ts),
        task=row.task,
        input=unpack(row.input),
        teacher_label=unpack_some(row.teacher_label),
        label_source=row.label_source,
        surrogate_label=unpack_some(row.surrogate_label),
        score=row.score,
        decision=row.decision,
        propensity=row.propensity,
        version=row.version,
        audit_rate=row.audit_rate,
        u=row.u,
        teacher_fingerprint=unpack_some(row.teacher_fingerprint),
        usage=parse(row.usage),
        cost=row.cost,
        latency_ms=parse(row.latency_ms),
        metadata=parse(row.metadata),
        form=unpack_some(row.form),
        group=unpack_some(row.group_id),
        key_id=unpack_some(row.key_id),
        audit_kind=row.audit_kind,
    )
