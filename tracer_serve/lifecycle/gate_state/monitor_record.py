"""The monitor's state in the trace store: one record for all processes of a task, carried from version to version.

A new record begins only with a new promise: with the first version that was certified on rows after a closing, and with
another teacher. So the probability of a false alarm, delta, covers all versions in between together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.monitor import MonitorState, hand_over, update
from tracer_serve.lifecycle.certificates import CertifiedVersion

MONITOR = "monitor"
"""Key in the store: a `MonitorState`, with the version, the teacher and the closing that it belongs to."""
PROVED = "monitor.proved"
"""Key in the store: versions that were proved live, and after how many audits."""


def monitor_state(stored: dict[str, Any] | None, version: CertifiedVersion, gate: GateSpec) -> MonitorState:
    """Return the monitor's state for a version.

    Parameters
    ----------
    stored : the value in the store, None before the first audit
    """
    alpha = monitored_agreement(gate, version.certificate.coverage)
    if stored is None or not _same_promise(stored, version):
        return MonitorState(alpha=alpha, delta=gate.delta)
    state = MonitorState.from_json(stored["state"])
    if stored["version"] == version.number and (state.alpha, state.delta) == (alpha, gate.delta):
        return state
    return hand_over(state, alpha, gate.delta)


def add_audits(version: CertifiedVersion, gate: GateSpec, outcomes: Sequence[bool]) -> Callable[[Any], dict[str, Any]]:
    """Return a function for `TraceStore.update_value` that adds audits of a version to the stored record.

    Parameters
    ----------
    outcomes : whether each audit agreed, in the order of the answers
    """

    def add(stored: dict[str, Any] | None) -> dict[str, Any]:
        if stored is not None and stored["teacher"] == version.teacher and stored["after"] > version.after:
            return stored  # a newer version has opened the gate again, and this process has not loaded it yet
        state = monitor_state(stored, version, gate)
        for agree in outcomes:
            state = update(state, agree)
        of = {"version": version.number, "teacher": version.teacher, "after": version.after}
        return of | {"state": state.to_json()}

    return add


def add_audits_by_name(
    version: CertifiedVersion, gates: Mapping[str, GateSpec], outcomes: Mapping[str, Sequence[bool]]
) -> Callable[[Any], dict[str, Any]]:
    """Return `add_audits` for a stored record of several monitors, each with a gate and outcomes under its name."""

    def add(stored: dict[str, Any] | None) -> dict[str, Any]:
        known = stored or {}
        added = {name: add_audits(version, gates[name], of)(known.get(name)) for name, of in outcomes.items()}
        return {**known, **added}

    return add


def monitored_agreement(gate: GateSpec, coverage: float) -> float:
    """Return the agreement among the handled texts that the monitor defends.

    This is alpha. Where the promise is about all requests (``overall``), the handled share alone may disagree more.

    Examples
    --------
    >>> gate, overall = GateSpec(alpha=0.95), GateSpec(alpha=0.95, guarantee="overall")
    >>> monitored_agreement(gate, 0.5), round(monitored_agreement(overall, 0.5), 3)
    (0.95, 0.9)
    """
    if gate.guarantee != "overall" or not coverage:
        return gate.alpha
    return max(0.5, 1.0 - (1.0 - gate.alpha) / coverage)


def _same_promise(stored: dict[str, Any], version: CertifiedVersion) -> bool:
    return bool(stored["teacher"] == version.teacher and stored["after"] == version.after)
