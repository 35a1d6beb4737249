"""Ten days of Banking77 traffic: coverage over time, and detection of a teacher that changes its labels.

    python -m bench.flywheel --seeds 0 1 2 --plot docs/flywheel.svg

2,000 starting traces, then 1,000 calls a day and a refit each night, alpha .95. Gold labels play the teacher; in the
second world it swaps eight intents from day 6 on. Arms: tracer-llm, which refits on labels of what it defers;
tracer-serve without audits; tracer-serve; and tracer-serve with every label free of charge, an upper bound. A long run
can be made in pieces: `--json` prints rows, `--rows` reads them again.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from bench.data import load
from bench.flywheel_arm import Arm
from bench.flywheel_peer import peer
from bench.flywheel_plot import draw
from bench.flywheel_world import ALPHA, DAYS, DELTA, Day, World, worlds
from bench.shown import show
from tracer_serve.cli.console import progress_bar
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.storage.traces import open_store

_KINDS = {"no audits": (False, False), "tracer-serve": (True, False), "all labels": (False, True)}
ARMS = ("tracer-llm", *_KINDS)
_SPEC = {
    "name": "bench",
    "teacher": "offline",
    "gate": {"alpha": ALPHA, "delta": DELTA},
    "traces": {"audit_rate": "auto"},
}


def arms(world: World, names: Sequence[str], spec: dict[str, Any], folder: Path) -> Iterator[Callable[[], list[Day]]]:
    """Yield the arms, each ready to run."""
    task = Task(Spec.model_validate(_SPEC | spec), Path("bench"), "")
    for name in names:
        if name == "tracer-llm":
            yield lambda: peer(world)
        else:
            store = open_store(folder / f"{world.name}-{world.seed}-{name}.db".replace(" ", "-"), "bench")
            yield Arm(name, world, task, store, *_KINDS[name]).run


def by_day(days: Sequence[Day]) -> Iterator[Table]:
    """Yield a table per world: means over the seeds."""
    for world in dict.fromkeys(day.world for day in days):
        table = Table(
            "arm",
            "day",
            "coverage",
            "saved net",
            "true",
            "lived",
            "reported",
            "audits",
            "alarm after audits",
            title=world,
        )
        table.columns[0].no_wrap = True
        for arm, number in dict.fromkeys((day.arm, day.day) for day in days if day.world == world):
            group = [day for day in days if (day.world, day.arm, day.day) == (world, arm, number)]
            shares = [_mean(group, key) for key in ("coverage", "saved", "agreement", "lived", "reported")]
            shown = ["" if share is None else f"{100 * share:.1f}" for share in shares]
            audits = f"{np.mean([day.audits for day in group]):.0f}"
            table.add_row(arm, str(number), *shown, audits, " ".join(_alarm(day) for day in group if day.alarm_after))
        yield table


def by_arm(days: Sequence[Day]) -> Table:
    """Return a line per arm: the last day's coverage, and how far the reported agreement is from the true one."""
    table = Table(
        "world", "arm", "seeds", "coverage, last day", "saved net", "reported - true, points", "within 1 point"
    )
    for world, arm in dict.fromkeys((day.world, day.arm) for day in days):
        group = [day for day in days if (day.world, day.arm) == (world, arm)]
        last = [day.coverage for day in group if day.day == DAYS]
        off = [100 * (d.reported - d.agreement) for d in group if d.reported is not None and d.agreement is not None]
        noise = [100 * day.noise for day in group if day.noise is not None]
        by_chance = f", sd by chance {np.mean(noise):.2f}" if noise else ""
        table.add_row(
            world,
            arm,
            str(len({day.seed for day in group})),
            f"{100 * np.mean(last):.1f} ({100 * min(last):.1f} to {100 * max(last):.1f})",
            f"{100 * np.mean([day.saved for day in group]):.1f}",
            f"mean {np.mean(off):+.2f}, sd {np.std(off):.2f}{by_chance}, largest {max(off, key=abs):+.2f}",
            f"{np.sum(np.abs(off) <= 1)} of {len(off)} days",
        )
    return table


def _mean(group: Sequence[Day], key: str) -> float | None:
    values = [getattr(day, key) for day in group if getattr(day, key) is not None]
    return float(np.mean(values)) if values else None


def _alarm(day: Day) -> str:
    opened = "" if day.reopened is None else f", open at call {day.reopened}"
    return f"{day.alarm_after} (expected {day.alarm_median:.0f}, 95 % under {day.alarm_late:.0f}{opened})"


def read(files: Sequence[Path]) -> list[Day]:
    """Read rows that `--json` printed."""
    names = {field.name for field in fields(Day)}
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
    return [Day(**{key: row[key] for key in names & row.keys()}) for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the order of the rows and of the audits")
    parser.add_argument("--worlds", choices=["calm", "drift"], nargs="+", default=["calm", "drift"])
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=ARMS)
    parser.add_argument("--spec", default="{}", help='YAML laid over our spec, as "{surrogates: [logreg]}"')
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="print and draw these as well, run by --json")
    parser.add_argument("--only-rows", action="store_true", help="run nothing")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    parser.add_argument("--plot", type=Path, help="draw an SVG, of the first seed")
    options = parser.parse_args(arguments)
    days = read(options.rows)
    if not options.only_rows:
        with progress_bar() as progress, tempfile.TemporaryDirectory() as folder:
            data = load("banking77", lambda done, total: progress("embedding", done, total))
            made = [worlds(data, seed)[name] for seed in options.seeds for name in options.worlds]
            spec = yaml.safe_load(options.spec)
            runs = [run for world in made for run in arms(world, options.arms, spec, Path(folder))]
            for done, run in enumerate(runs):
                progress("arms", done, len(runs))
                days += run()
            progress("arms", len(runs), len(runs))
    if options.plot:
        drawn = [asdict(day) for day in days if day.seed == min(day.seed for day in days)]
        options.plot.write_text(draw(drawn), encoding="utf-8")
    show(days, *by_day(days), by_arm(days), as_json=options.json)


if __name__ == "__main__":
    main()
