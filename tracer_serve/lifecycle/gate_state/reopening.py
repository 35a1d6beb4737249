"""Decide when a refit is worth trying that may open a closed gate."""

import math
from dataclasses import dataclass
from typing import Any

from tracer_serve.config.task import Spec
from tracer_serve.gate.binomial import n_min
from tracer_serve.lifecycle.certificates import current_version
from tracer_serve.lifecycle.gate_state.closing import Closing, closing_of
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.gate_state.state import Reason
from tracer_serve.lifecycle.teacher_change import TEACHER
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.store import VersionStore, all_manifests

ATTEMPT = "schedule.attempt"
"""Key in the store: the last refit that a schedule started."""

_FIRST_ROWS, _GROWTH = 4, 1.5  # the first attempt needs 4 n_min rows, each later one half as many more
_TRIGGERS = {
    Reason.NO_VERSION: "start",
    Reason.TEACHER_CHANGED: "teacher",
    Reason.PROMISE_CHANGED: "promise",
    Reason.DRIFT: "alarm",
}


@dataclass(frozen=True, slots=True)
class Reopening:
    """The next attempt to open a closed gate.

    Parameters
    ----------
    trigger : of the refit: ``start`` (a first version), ``alarm``, ``teacher`` or ``promise``
    cause : why the gate is closed; attempts for another cause do not count
    rows : labelled rows that may calibrate, so far
    needed : labelled rows at which the refit starts
    before : labelled rows at the last attempt, which did not open the gate; 0 before the first
    attempts : attempts so far
    """

    trigger: str
    cause: str
    rows: int
    needed: int
    before: int = 0
    attempts: int = 0

    @property
    def due(self) -> bool:
        """Whether there are enough rows for a refit."""
        return self.rows >= self.needed

    def describe(self, *, under_way: bool = False) -> str:
        """Return what is missing, for people.

        Parameters
        ----------
        under_way : whether a refit is running

        Examples
        --------
        >>> Reopening("alarm", "drift", 45, 60).describe()
        'A refit starts at 60 labelled rows since then; there are 45.'
        >>> Reopening("alarm", "drift", 75, 90, before=60).describe()
        'A refit on 60 labelled rows since then did not open the gate; the next starts at 90, and there are 75.'
        """
        if under_way:
            return "A refit is running. If it certifies a version, the gate opens."
        there = "there is 1" if self.rows == 1 else f"there are {self.rows:,}"
        rows = "labelled rows" if self.trigger == "start" else "labelled rows since then"
        if self.due:
            return f"{there[0].upper()}{there[1:]} {rows}: a refit starts within seconds."
        if not self.before:
            return f"A refit starts at {self.needed:,} {rows}; {there}."
        tried = f"A refit on {self.before:,} {rows} did not open the gate"
        return f"{tried}; the next starts at {self.needed:,}, and {there}."

    def tried(self) -> dict[str, Any]:
        """Return the record of this attempt, which `reopening_of` takes as `tried`."""
        return {"cause": self.cause, "rows": self.rows, "attempts": self.attempts + 1}


def reopening_of(spec: Spec, store: TraceStore, versions: VersionStore) -> Reopening | None:
    """Return the next attempt to open the gate; None while it is open, and after a refit that did not certify."""
    version = current_version(versions)
    teacher, closing = store.values.get(TEACHER), closing_of(store)
    fingerprint = teacher["fingerprint"] if teacher is not None else "" if version is None else version.teacher
    state = Requirements(fingerprint, spec.gate, closing).state(version)
    if state.reason is None or state.reason is Reason.NO_CERTIFICATE:
        return None  # a version that was not certified waits for the schedule: each test spends probability
    trigger, closed = _TRIGGERS[state.reason], "" if closing is None else closing.after
    after = max(closed, teacher["since"]) if trigger == "teacher" else closed
    cause, rows = f"{state.message} {after}".strip(), store.traces.labelled_since(after)
    # a new promise can be tested on the existing rows, and a paired migration obtains its labels itself
    at_once = trigger == "promise" or (trigger == "teacher" and spec.traces.migrate == "paired")
    needed, before, attempts = _FIRST_ROWS * n_min(spec.gate.alpha, spec.gate.delta), 0, 0
    tried = attempt_of(store).get("repair")
    if tried is not None and tried.get("cause") == cause:
        before, attempts = tried["rows"], tried["attempts"]
        needed = max(needed, math.ceil(_GROWTH * before))
    elif at_once:
        needed = 0
    return Reopening(trigger, cause, rows, needed, before, attempts)


def next_attempt(versions: VersionStore, closing: Closing | None) -> int:
    """Return which attempt to open the gate since the last alarm the next certificate is; 0 if it is open again."""
    current = versions.current()
    serving = None if current is None else versions.manifest(current)
    if closing is None or (serving is not None and serving.certified and serving.after >= closing.after):
        return 0
    return 1 + max((m.attempt for m in all_manifests(versions) if m.after >= closing.after), default=0)


def attempt_of(store: TraceStore) -> dict[str, Any]:
    """Return the record of the last refit that a schedule started; empty if there was none."""
    found: dict[str, Any] = store.values.get(ATTEMPT) or {}
    return found
