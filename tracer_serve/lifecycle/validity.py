"""Why a certified version may not answer: another teacher, a higher promise in the YAML, or an alarm since.

None of these is ever set back. A version stands up to them or it does not, so one that does opens the gate by being
served.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.certificate import Certificate
from tracer_serve.lifecycle.gate_state import Closing

REASONS = ("teacher_changed", "promise_changed", "drift")
"""Words for what voids a certificate."""
_CHANGED = (
    "teacher_changed: the version was certified on another teacher's labels (model, prompt, label set or temperature"
    " differ). Refits certify anew as this teacher's labels come in; traces.migrate: paired asks it about old texts"
)


@dataclass(frozen=True, slots=True)
class Invalidity:
    """What voids a certificate.

    Parameters
    ----------
    reason : one of `REASONS`
    message : for people, with what opens the gate again
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a certificate has to stand up to.

    Parameters
    ----------
    teacher : fingerprint of the teacher that the spec names
    gate : what the spec promises
    closing : the last closing of the gate
    """

    teacher: str
    gate: GateSpec
    closing: Closing | None = None

    def void(self, certificate: Certificate, teacher: str, after: str) -> Invalidity | None:
        """Return why a version's certificate is void, None where it holds.

        Parameters
        ----------
        teacher : whose labels the version was certified on
        after : its calibration rows came after this trace id
        """
        if teacher != self.teacher:
            return Invalidity("teacher_changed", _CHANGED)
        lacks = "; ".join(shortfalls(certificate, self.gate))
        if lacks:
            return Invalidity(
                "promise_changed",
                f"promise_changed: {lacks}. A refit certifies anew; it starts by itself, or with `tracer-serve refit`."
                " With the former value in the YAML the version answers again at once",
            )
        if self.closing is not None and after < self.closing.after:
            return Invalidity("drift", self.closing.message)
        return None


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
    for key, (wanted, given, short) in pairs.items():
        if short:
            yield f"gate.{key} is {_yaml(wanted)}, and the version was certified for {_yaml(given)}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
