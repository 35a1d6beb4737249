"""What changed since the versions before."""

from collections.abc import Mapping, Sequence
from typing import Any


def history_of(headline: Mapping[str, Any], created: str, earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return coverage and bound over the versions, oldest first, this one last."""
    wanted = ("certified", "coverage", "agreement", "lower_bound")
    points = [(old["created"], old["headline"]) for old in earlier] + [(created, headline)]
    return [{"created": when} | {name: facts.get(name) for name in wanted} for when, facts in points]
