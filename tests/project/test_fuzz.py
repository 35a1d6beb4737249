"""Parsers of what callers, endpoints and log files say, fed with mutated inputs."""

import pytest

from bench.fuzz import TARGETS, fuzz


@pytest.mark.parametrize("inputs", [200, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS)
def test_mutated_inputs_are_read_or_refused(target: str, inputs: int) -> None:
    """Each input is parsed, or refused by the documented error; nothing else is raised."""
    assert fuzz(TARGETS[target], seed=1, seconds=600.0, most=inputs).inputs == inputs
