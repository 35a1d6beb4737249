"""The last time that the gate was closed, shared by all processes of a task through the trace store.

The closing is kept as a trace id, and trace ids sort by time. A version records after which id its calibration rows
came (`Manifest.after`). Its certificate is void while that id lies before the last closing. So no process ever has to
reset anything: a version that was certified on later rows opens the gate as soon as it becomes the current one.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tracer_serve.storage.traces import TraceStore, new_id
from tracer_serve.storage.traces.audit_log import AuditEntry

CLOSING = "gate.closing"
"""Key in the store: the last closing of the gate."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The last time the monitor closed the gate.

    Parameters
    ----------
    after : rows up to this trace id no longer calibrate
    version : the version whose audits raised the alarm
    at : UTC, ISO 8601
    audits, agreements : audits of that version at the alarm, and how many of them agreed
    evidence : the monitor's evidence, at least 1/delta
    label : the protected label that was lost, where its monitor raised the alarm; then `audits` are its requests, and
        `agreements` those that were kept
    """

    after: str
    version: int
    at: str
    audits: int
    agreements: int
    evidence: float
    label: str | None = None

    @property
    def moment(self) -> datetime:
        """The time of the closing."""
        return datetime.fromisoformat(self.at)

    @property
    def message(self) -> str:
        """Return what the monitor found, for people."""
        if self.label is not None:
            return (
                f"drift: of the sampled requests that the teacher labels {self.label!r}, version {self.version} kept"
                f" {self.agreements:,} of {self.audits:,} (evidence {self.evidence:.3g})"
            )
        return (
            f"drift: version {self.version} agreed with the teacher on {self.agreements:,} of {self.audits:,} audits"
            f" (evidence {self.evidence:.3g})"
        )


def closing_of(store: TraceStore) -> Closing | None:
    """Return the last closing; None if the gate was never closed."""
    value = store.values.get(CLOSING)
    return None if value is None else Closing(**value)


def closing_at(  # noqa: PLR0917
    after: str, version: int, audits: int, agreements: int, evidence: float, label: str | None = None
) -> Closing:
    """Return a closing dated now. JSON has no infinity, so an infinite evidence becomes a very large number."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Closing(after, version, at, audits, agreements, min(evidence, 1e300), label)


def close_gate(  # noqa: PLR0917
    store: TraceStore, version: int, audits: int, agreements: int, evidence: float, label: str | None = None
) -> Closing:
    """Close the gate for every version whose calibration rows came before now. Of two closings the later counts."""
    closing = closing_at(moment_after(store), version, audits, agreements, evidence, label)

    def later(present: dict[str, Any] | None) -> dict[str, Any]:
        return present if present is not None and present["after"] >= closing.after else asdict(closing)

    found = Closing(**store.values.update(CLOSING, later))
    if found == closing:  # of several processes that see the alarm, the one whose closing counts
        facts = {"audits": audits, "agreements": agreements}
        store.audit_log.record(AuditEntry("monitor", "gate.close", str(version), details=facts))
    return found


def moment_after(store: TraceStore) -> str:
    """Return a trace id after every stored row, even if a row came from a machine whose clock is ahead."""
    return max(new_id(), store.traces.latest_id() or "")
