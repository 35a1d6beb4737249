"""States of the gate: open, or closed for one of five reasons."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why the gate is closed; each with who closed it, and what opens it again.

    Examples
    --------
    >>> Reason.DRIFT.closed_by
    'the monitor'
    """

    NO_VERSION = "no_version"
    NO_CERTIFICATE = "no_certificate"
    TEACHER_CHANGED = "teacher_changed"
    PROMISE_CHANGED = "promise_changed"
    DRIFT = "drift"

    @property
    def closed_by(self) -> str:
        """What closed the gate."""
        return _TRANSITIONS[self][0]

    @property
    def reopens_when(self) -> str:
        """What opens the gate again."""
        return _TRANSITIONS[self][1]


_TRANSITIONS = {
    Reason.NO_VERSION: ("the start of the task", "a refit certifies the first version"),
    Reason.NO_CERTIFICATE: ("a refit that did not certify", "a refit certifies a version"),
    Reason.TEACHER_CHANGED: (
        "a change of the teacher in the YAML",
        "a refit certifies a version on this teacher's labels, or the YAML names the former teacher again",
    ),
    Reason.PROMISE_CHANGED: (
        "a change of `gate` in the YAML",
        "a refit certifies a version for this promise, or the YAML has the former value again",
    ),
    Reason.DRIFT: ("the monitor", "a refit certifies a version on rows that came after the alarm"),
}

VOIDING = (Reason.TEACHER_CHANGED, Reason.PROMISE_CHANGED, Reason.DRIFT)
"""Reasons that close the gate for a version that has a certificate."""


@dataclass(frozen=True, slots=True)
class GateState:
    """The state of the gate for one version.

    Parameters
    ----------
    reason : why it is closed; None while it is open
    message : the facts behind the reason, for people; empty while it is open
    """

    reason: Reason | None = None
    message: str = ""

    @property
    def open(self) -> bool:
        """Whether certified answers count."""
        return self.reason is None

    @property
    def void(self) -> bool:
        """Whether the version has a certificate that no longer holds."""
        return self.reason in VOIDING


OPEN = GateState()
