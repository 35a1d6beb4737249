"""The monitor's state in the trace store: one for all processes of a task, carried from version to version.

It begins anew only where another promise begins: with the first version that was certified on rows after an alarm, and
with another teacher. So what a false alarm may cost, delta, holds for all versions in between together.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.monitor import MonitorState, hand_over, update
from tracer_serve.serving.active_version import ActiveVersion

MONITOR = "monitor"
"""The value in the store: a `MonitorState`, and the version, the teacher and the closing that it belongs to."""


def state_of(stored: dict[str, Any] | None, loaded: ActiveVersion, gate: GateSpec) -> MonitorState:
    """Return the state in which a version goes on.

    Parameters
    ----------
    stored : the value in the store, None before the first audit
    """
    alpha = monitored(gate, loaded.policy.certificate.coverage)
    if stored is None or not _same_promise(stored, loaded):
        return MonitorState(alpha=alpha, delta=gate.delta)
    state = MonitorState.from_json(stored["state"])
    if stored["version"] == loaded.number and (state.alpha, state.delta) == (alpha, gate.delta):
        return state
    return hand_over(state, alpha, gate.delta)


def folding(loaded: ActiveVersion, gate: GateSpec, outcomes: Sequence[bool]) -> Callable[[Any], dict[str, Any]]:
    """Return what makes of the stored value the one after some audits of a version, in the order they came."""

    def fold(stored: dict[str, Any] | None) -> dict[str, Any]:
        if stored is not None and stored["teacher"] == loaded.teacher and stored["after"] > loaded.after:
            return stored  # the gate was opened again by a newer version, of which this process hears soon
        state = state_of(stored, loaded, gate)
        for agree in outcomes:
            state = update(state, agree)
        of = {"version": loaded.number, "teacher": loaded.teacher, "after": loaded.after}
        return of | {"state": state.to_json()}

    return fold


def monitored(gate: GateSpec, coverage: float) -> float:
    """Return the agreement among the handled that the monitor defends.

    alpha; where the promise speaks of all requests (``overall``), what it leaves for the handled share of them.

    Examples
    --------
    >>> monitored(GateSpec(alpha=0.95), 0.5), round(monitored(GateSpec(alpha=0.95, guarantee="overall"), 0.5), 3)
    (0.95, 0.9)
    """
    if gate.guarantee != "overall" or not coverage:
        return gate.alpha
    return max(0.5, 1.0 - (1.0 - gate.alpha) / coverage)


def _same_promise(stored: dict[str, Any], loaded: ActiveVersion) -> bool:
    return bool(stored["teacher"] == loaded.teacher and stored["after"] == loaded.after)
