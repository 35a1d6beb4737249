"""What a certificate must satisfy to keep the gate open: the teacher, the promise, and the last closing.

These conditions are never reset; only a version that satisfies them opens the gate, by becoming the current one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.certificate import Certificate
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.lifecycle.gate_state.closing import Closing
from tracer_serve.lifecycle.gate_state.state import OPEN, GateState, Reason

_NO_VERSION = "no version has been fitted yet; every request goes to the teacher, and each answer becomes a trace"
_TEACHER = (
    "teacher_changed: the version was certified on another teacher's labels (model, prompt, label set or temperature"
    " differ). Refits certify again as labels of this teacher arrive; `traces.migrate: paired` asks it about old texts,"
    " and `label_changes` keeps the evidence if labels were only renamed or merged"
)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a certificate must satisfy.

    Parameters
    ----------
    teacher : fingerprint of the teacher in the YAML
    gate : the promise in the YAML
    closing : the last closing of the gate
    """

    teacher: str
    gate: GateSpec
    closing: Closing | None = None

    def state(self, version: CertifiedVersion | None) -> GateState:
        """Return the state of the gate for a version; None means that there is none."""
        if version is None:
            return GateState(Reason.NO_VERSION, _NO_VERSION)
        if not version.certificate.certified:
            why = f"version {version.number} was not certified ({version.certificate.reason})"
            return GateState(Reason.NO_CERTIFICATE, why)
        if version.teacher != self.teacher:
            return GateState(Reason.TEACHER_CHANGED, _TEACHER)
        if lacks := "; ".join(shortfalls(version.certificate, self.gate)):
            return GateState(
                Reason.PROMISE_CHANGED,
                f"promise_changed: {lacks}. A version that is certified for it opens the gate; the refit starts"
                " automatically, or with `tracer-serve refit`. If the YAML returns to the former value, the version"
                " answers again at once",
            )
        if self.closing is not None and version.after < self.closing.after:
            return GateState(Reason.DRIFT, self.closing.message)
        return OPEN


def shortfalls(found: Certificate, gate: GateSpec) -> Iterator[str]:
    """Yield each key of the gate that asks for more than a certificate gives.

    Examples
    --------
    >>> found = Certificate(True, "certified", 0.9, 0.05, "strict", 100, 90, 88, 0.91, 0.3, 0.9)
    >>> list(shortfalls(found, GateSpec(alpha=0.95)))
    ['gate.alpha is 0.95, and the version was certified for 0.9']
    >>> list(shortfalls(found, GateSpec(alpha=0.85)))
    []
    """
    series = gate.spend == "series" and gate.guarantee == "probability"
    pairs: dict[str, tuple[Any, Any, bool]] = {
        "alpha": (gate.alpha, found.alpha, found.alpha < gate.alpha),
        "delta": (gate.delta, found.delta, found.delta > gate.delta),
        "guarantee": (gate.guarantee, found.guarantee, found.guarantee != gate.guarantee),
        "mode": (gate.mode, found.mode, (gate.mode, found.mode) == ("strict", "cross_fit")),
        # an average over versions has no delta that could be spent
        "spend": (gate.spend, found.spend, series and found.spend != "series"),
        "per_class": (gate.per_class, found.per_class, gate.per_class and not found.per_class),
    }
    kept = {label.label: label.required for label in found.protected}
    pairs |= {
        f"protect.{label}": (recall, kept.get(label, "none"), kept.get(label, 0.0) < recall)
        for label, recall in gate.protect.items()
    }
    known = [(row.name, row.pattern) for row in found.segments if row.pattern]
    wanted_segments = [*gate.segments.items()]
    pairs["segments"] = wanted_segments, known or "none", bool(wanted_segments) and wanted_segments != known
    for key, (wanted, given, short) in pairs.items():
        if short:
            yield f"gate.{key} is {_yaml(wanted)}, and the version was certified for {_yaml(given)}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
