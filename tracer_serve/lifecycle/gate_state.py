"""What all processes of a task agree on beside its versions: when the gate closed, and since when the teacher is whose.

Both are moments, told as trace ids, which sort by time. A version knows after which moment its calibration rows came
(`Manifest.after`); while that is before the last closing, its certificate is void. So nothing ever has to be set back:
a version that certified on rows after the closing opens the gate by being served, in one file replacement.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tracer_serve.storage.traces import TraceStore, new_id

CLOSING, PROGRESS, ATTEMPT = "gate.closing", "refit.progress", "schedule.attempt"
"""Keys in the store: the last closing of the gate, the progress of the running refit, the last scheduled refit."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The last time the monitor closed the gate.

    Parameters
    ----------
    after : rows up to this id calibrate no more
    version : the version that was found out
    at : UTC, ISO 8601
    audits, agreements : of that version, at the alarm
    evidence : the monitor's, at least 1/delta
    """

    after: str
    version: int
    at: str
    audits: int
    agreements: int
    evidence: float

    @property
    def moment(self) -> datetime:
        """When that was."""
        return datetime.fromisoformat(self.at)

    @property
    def message(self) -> str:
        """Return the finding for people."""
        return (
            f"drift: version {self.version} agreed with the teacher on {self.agreements:,} of {self.audits:,} audits"
            f" (evidence {self.evidence:.3g})"
        )


def closing_of(store: TraceStore) -> Closing | None:
    """Return the last closing, None where the gate never closed."""
    value = store.values.get(CLOSING)
    return None if value is None else Closing(**value)


def closing_at(after: str, version: int, audits: int, agreements: int, evidence: float) -> Closing:
    """Return the closing of now; an infinite evidence as the largest finite number: JSON has no infinity."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Closing(after, version, at, audits, agreements, min(evidence, 1e300))


def close_gate(store: TraceStore, version: int, audits: int, agreements: int, evidence: float) -> Closing:
    """Close the gate for every version whose calibration rows came before now; of two closings the later counts."""
    closing = closing_at(moment_after(store), version, audits, agreements, evidence)

    def later(present: dict[str, Any] | None) -> dict[str, Any]:
        return present if present is not None and present["after"] >= closing.after else asdict(closing)

    return Closing(**store.values.update(CLOSING, later))


def moment_after(store: TraceStore) -> str:
    """Return a moment after every row that is there, also after those of a clock that ran ahead."""
    return max(new_id(), store.traces.latest_id() or "")
