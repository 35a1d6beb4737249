"""What a closed gate waits for: when a refit is worth its while that may open it again."""

import math
from dataclasses import dataclass
from typing import Any

from tracer_serve.config.task import Spec
from tracer_serve.gate.binomial import n_min
from tracer_serve.lifecycle.certificates import certificate_of
from tracer_serve.lifecycle.gate_state import closing_of
from tracer_serve.lifecycle.teacher_change import TEACHER
from tracer_serve.lifecycle.validity import Requirements
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.local import Versions

_ROWS, _GROWTH = 4, 1.5  # a repair is tried at so many times n_min rows, and after that ever more
_TRIGGERS = {"teacher_changed": "teacher", "promise_changed": "promise", "drift": "alarm"}


@dataclass(frozen=True, slots=True)
class Repair:
    """What the current version's void certificate waits for.

    Parameters
    ----------
    trigger : of the refit: ``alarm``, ``teacher`` or ``promise``
    cause : in words; with another cause nothing counts as tried
    rows : labelled rows that may calibrate it, and more
    needed : so many of them are worth a refit
    before : so many there were at the last attempt, which did not open the gate; 0 before the first
    attempts : how many there were
    """

    trigger: str
    cause: str
    rows: int
    needed: int
    before: int = 0
    attempts: int = 0

    @property
    def due(self) -> bool:
        """Whether the rows are worth a refit."""
        return self.rows >= self.needed

    def words(self, *, under_way: bool = False) -> str:
        """Say what is missing, for people.

        Parameters
        ----------
        under_way : whether a refit runs

        Examples
        --------
        >>> Repair("alarm", "drift", 45, 60).words()
        'A refit starts at 60 labelled rows since then; 45 are there.'
        >>> Repair("alarm", "drift", 75, 90, before=60).words()
        'A refit on 60 labelled rows since then did not open the gate; the next starts at 90, and 75 are there.'
        """
        if under_way:
            return "A refit is under way that opens the gate if it certifies."
        if self.due:
            return f"There are {self.rows:,} labelled rows since then: a refit starts within seconds."
        there = "1 is" if self.rows == 1 else f"{self.rows:,} are"
        if not self.before:
            return f"A refit starts at {self.needed:,} labelled rows since then; {there} there."
        tried = f"A refit on {self.before:,} labelled rows since then did not open the gate"
        return f"{tried}; the next starts at {self.needed:,}, and {there} there."

    def tried(self) -> dict[str, Any]:
        """Return what to keep of an attempt, for `repair_of`."""
        return {"cause": self.cause, "rows": self.rows, "attempts": self.attempts + 1}


def repair_of(spec: Spec, store: TraceStore, versions: Versions, tried: dict[str, Any] | None) -> Repair | None:
    """Say what the current version waits for; None where its certificate holds, or where it never had one.

    Parameters
    ----------
    tried : what the last attempt at a repair left
    """
    current = versions.current()
    manifest = None if current is None else versions.manifest(current)
    if current is None or manifest is None or not manifest.certified:
        return None
    teacher, closing = store.values.get(TEACHER), closing_of(store)
    demands = Requirements(manifest.teacher if teacher is None else teacher["fingerprint"], spec.gate, closing)
    void = demands.void(certificate_of(versions, current), manifest.teacher, manifest.after)
    if void is None:
        return None
    trigger, closed = _TRIGGERS[void.reason], "" if closing is None else closing.after
    after = max(closed, teacher["since"]) if trigger == "teacher" else closed
    cause, rows = f"{void.message} {after}".strip(), store.traces.labelled_since(after)
    # a promise is tried at once on the rows that are there, and paired labels are asked for by the refit itself
    at_once = trigger == "promise" or (trigger == "teacher" and spec.traces.migrate == "paired")
    needed, before, attempts = _ROWS * n_min(spec.gate.alpha, spec.gate.delta), 0, 0
    if tried is not None and tried.get("cause") == cause:
        before, attempts = tried["rows"], tried["attempts"]
        needed = max(needed, math.ceil(_GROWTH * before))
    elif at_once:
        needed = 0
    return Repair(trigger, cause, rows, needed, before, attempts)
