"""Run and tabulate the worlds of `bench.guarantee --worlds`."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from bench.worlds import WorldRow, run_world
from bench.worlds_fit import FIT_WORLDS
from bench.worlds_groups import GROUP_WORLDS
from bench.worlds_time import TIME_WORLDS
from tracer_serve.fit.progress import Progress

WORLDS = (*GROUP_WORLDS, *FIT_WORLDS, *TIME_WORLDS)


def world_rows(names: Sequence[str], systems: Sequence[str], runs: int, progress: Progress) -> Iterator[WorldRow]:
    """Run the named worlds with each of the systems ``tracer-serve`` and ``before``."""
    chosen = [(world, system) for world in WORLDS if world.name in names for system in systems]
    for number, (world, system) in enumerate(chosen):
        yield run_world(world, runs, remedy=system == "tracer-serve")
        progress(f"{world.name}, {system}", number + 1, len(chosen))


def world_table(rows: Sequence[WorldRow]) -> Table:
    """Return a line per world and system; red where the 95 % interval lies above the limit."""
    shown = Table("world", "variant", "grouped", "system", "<=", "wrong", "runs", "cover", box=box.SIMPLE)
    for row in rows:
        style = "bold red" if row.low > row.limit else "green"
        rate = f"[{style}]{row.violation_rate:.1%}[/] ({row.low:.1%} to {row.high:.1%})"
        given = "given" if row.grouped else "found"
        facts = (row.system, f"{row.limit:.0%}", rate, str(row.runs), f"{row.coverage:.1%}")
        shown.add_row(row.world, row.variant, given, *facts)
    return shown
