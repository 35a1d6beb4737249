"""SECURITY.md and tests/attacks.md claim what tests hold, and name them."""

import re
from pathlib import Path

import pytest

from tracer_serve.server.http.connection_limits import BoundedProtocol
from tracer_serve.server.http.idle_connections import Limits

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ATTACKS = (ROOT / "tests" / "attacks.md").read_text(encoding="utf-8")
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
}


def claims(text: str) -> list[str]:
    """Return the rows of tables and the items of lists, without the heads of tables."""
    items = re.split(r"\n(?=- |\d+\. |\| |\n)", text)
    rows = [item for item in items if re.match(r"- |\d+\. |\| ", item)]
    return [row for row in rows if not re.match(r"\| (who|---|attack) ", row)]


@pytest.mark.parametrize("claim", claims(SECURITY), ids=lambda claim: re.sub(r"\W+", " ", claim)[:50])
def test_each_claim_names_its_tests(claim: str) -> None:
    """A claim of SECURITY.md names tests that exist, or says that it has none."""
    (named,) = re.findall(r"<!-- (.+?) -->", claim)
    assert named == "not tested" or set(named.split(", ")) <= TESTS


def test_every_attack_names_its_tests() -> None:
    """Each attack has a row, with tests that exist."""
    rows = claims(ATTACKS)
    assert [row.split("|")[1].strip() for row in rows[:17]] == [f"S{number}" for number in range(1, 18)]
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, row
        assert named <= TESTS, row


def test_the_numbers_are_those_of_the_code() -> None:
    """The limits of connections that SECURITY.md names are the server's."""
    limits = Limits()
    assert BoundedProtocol.limits == limits
    assert f"{limits.idle_s:.0f} s and {limits.head_bytes / 1000:.0f} kB for a head" in SECURITY
    assert f"{limits.connections:,} connections a worker" in SECURITY
    assert f"{limits.write_bytes / limits.write_s / 1000:.0f} kB/s on average" in SECURITY
