"""The promise in the worlds that break independence: kept with the remedies, and broken without them."""

import pytest

from bench.worlds import World, run_world
from bench.worlds_groups import conversations
from bench.worlds_table import WORLDS

pytestmark = pytest.mark.slow

PROMISED = [world for world in WORLDS if world.promised]


def name(world: World) -> str:
    return f"{world.name} {world.variant} {'given' if world.grouped else 'found'}"


@pytest.mark.parametrize("world", PROMISED, ids=name)
def test_the_promise_is_kept(world: World) -> None:
    """The rate of wrong certificates is at most its limit, within the error of up to 600 draws."""
    assert run_world(world, 600).low <= world.limit


@pytest.mark.parametrize("world", PROMISED, ids=name)
def test_the_gate_without_the_remedy_is_caught(world: World) -> None:
    """The gate as it was before exceeds the same limit by more than the error of the draws."""
    assert run_world(world, 600, remedy=False).low > world.limit


def test_what_belongs_together_unseen_is_not_promised() -> None:
    """Conversations that nobody names have nothing in common that a miner could find: this is why groups are given."""
    assert run_world(conversations(named=False), 100).low > conversations(named=True).limit
