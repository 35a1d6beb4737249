"""The gate as a state machine: which state applies, and that each has an author and a way out."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.certificate import Certificate
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.lifecycle.gate_state.closing import Closing
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.gate_state.state import VOIDING, Reason

CERTIFICATE = Certificate(True, "certified", 0.95, 0.05, "cross_fit", 100, 90, 88, 0.96, 0.3, 0.9)
VERSION = CertifiedVersion(3, CERTIFICATE, "teacher", after="b")
ALARM = Closing("c", 3, "2026-11-01T00:00:00+00:00", 50, 30, 40.0)
HOLDS = Requirements("teacher", GateSpec(alpha=0.95))


@pytest.mark.parametrize(
    ("reason", "version", "requirements"),
    [
        (None, VERSION, HOLDS),
        (Reason.NO_VERSION, None, HOLDS),
        (Reason.NO_CERTIFICATE, replace(VERSION, certificate=replace(CERTIFICATE, certified=False)), HOLDS),
        (Reason.TEACHER_CHANGED, VERSION, replace(HOLDS, teacher="another")),
        (Reason.PROMISE_CHANGED, VERSION, replace(HOLDS, gate=GateSpec(alpha=0.97))),
        (Reason.DRIFT, VERSION, replace(HOLDS, closing=ALARM)),
        (None, replace(VERSION, after="c"), replace(HOLDS, closing=ALARM)),
    ],
)
def test_each_state_has_one_cause(
    reason: Reason | None, version: CertifiedVersion | None, requirements: Requirements
) -> None:
    """The state follows from the version, the YAML and the last closing alone; only `open` has no message."""
    state = requirements.state(version)
    assert (state.reason, state.open) == (reason, reason is None)
    assert bool(state.message) != state.open
    assert state.void == (reason in VOIDING)


def test_every_reason_has_an_author_and_a_way_out_and_is_in_the_diagram() -> None:
    """Each reason names who closed the gate and what opens it; docs/architecture.md draws exactly these states."""
    assert all(reason.closed_by and reason.reopens_when for reason in Reason)
    docs = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", docs, re.DOTALL)
    states = set(re.findall(r"^\s*(\w+) --> \w+", diagram, re.MULTILINE))
    assert states == {reason.value for reason in Reason} | {"open"}
