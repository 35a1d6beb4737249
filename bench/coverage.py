"""Coverage at a required agreement, and the agreement reached: tracer-llm and tracer-serve.

    python -m bench.coverage --dataset banking77_llm --teacher qwen3_30b_fewshot --alpha 0.80 0.90 0.95 0.97

Both systems get the same vectors and the same labels. Each fits on the train rows, or a random part of them, in a
process of its own, and is judged on the untouched test rows, once per alpha; tracer-serve without and with its scope
guard. A fit is counted once: CPU seconds and peak memory are those of the fit that serves all alphas of its rows.

    python -m bench.coverage --dataset sick --systems tracer-serve --surrogates logreg encoder --halves 20

A fit of minutes is not repeated: with ``--halves`` the policy is certified again on one half of the test rows, as
`gate.mode: strict` does on its fifth, and judged on the other half, near-duplicates together.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from bench.apart import apart
from bench.coverage_ours import OURS, Wanted, ours
from bench.coverage_peer import peers
from bench.coverage_row import Row
from bench.data import DATASETS, Dataset, load, with_noise
from tracer_serve.cli.console import out, progress_bar

_SHARES = ("coverage", "agreement", "worst_class", "oos_accepted", "first_share")


def draws(data: Dataset, traces: int | None, seeds: range) -> Iterator[tuple[int, Dataset]]:
    """Yield seed and dataset: with all its train rows, or with a random part of them per seed."""
    for seed in seeds:
        if traces is None or traces >= len(data.train):
            yield 0, data
            return
        rows = np.random.default_rng(seed).permutation(len(data.train))[:traces]
        yield seed, replace(data, train=data.train.take(rows))


def table(rows: Sequence[Row]) -> Table:
    """Return the means over the draws, a line per system, alpha and guard."""
    shown = Table(
        "system", "alpha", "scope keep", "coverage", "agreement", "worst class", "oos accepted", "first stage", "CPU s",
        "peak MB",
    )  # fmt: skip
    shown.columns[0].no_wrap = True
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.alpha, row.system, row.scope_keep), []).append(row)
    for (alpha, system, keep), group in sorted(groups.items(), key=str):

        def mean(field: str, scale: float, group: list[Row] = group) -> str:
            values = [getattr(row, field) for row in group if getattr(row, field) is not None]
            return f"{scale * np.mean(values):.1f}" if values else "-"

        shares = [mean(field, 100) for field in _SHARES]
        guard = "its own" if keep is None else "off" if keep >= 1 else f"{keep:g}"
        shown.add_row(system, f"{alpha:g}", guard, *shares, mean("cpu_s", 1), mean("peak_mb", 1))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", choices=DATASETS, default="banking77")
    parser.add_argument("--teacher", help="column of recorded answers of an LLM; default: the dataset's first, or gold")
    parser.add_argument("--pooled", action="store_true", help="a random split instead of the official one")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.95], help="required agreement, one or several")
    parser.add_argument("--delta", type=float, default=0.05, help="probability that a certificate is wrong")
    parser.add_argument("--traces", type=int, help="random part of the train rows; default: all of them")
    parser.add_argument("--resamples", type=int, default=1, help="how many such parts")
    parser.add_argument("--first-draw", type=int, default=0, help="seed of the first part: a long run in pieces")
    parser.add_argument("--noise", type=float, default=0.0, help="share of labels a neighbour's takes the place of")
    parser.add_argument("--peer-skip", nargs="*", default=[], help="candidates of tracer-llm to leave out, as gbt")
    parser.add_argument("--systems", default="tracer-serve,tracer-llm", help="comma-separated")
    parser.add_argument("--surrogates", nargs="+", default=OURS["surrogates"], help="ours, as blend encoder")
    parser.add_argument("--spec", default="{}", help='YAML laid over our spec, as "{surrogates: [logreg]}"')
    parser.add_argument("--keep", type=float, nargs="+", default=[], help="scope guards to try, as 0.98 0.9; 1: none")
    parser.add_argument("--halves", type=int, default=0, help="halves of the test rows that certify our one fit")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with progress_bar() as progress:
        data = load(
            options.dataset,
            lambda done, total: progress("embedding", done, total),
            options.teacher,
            pooled=options.pooled,
        )
        data = with_noise(data, options.noise) if options.noise else data
        seeds = range(options.first_draw, options.first_draw + options.resamples)
        for done, (seed, draw) in enumerate(draws(data, options.traces, seeds), 1):
            found: list[Row] = []
            if "tracer-serve" in options.systems:
                spec = {**OURS, "surrogates": options.surrogates, **yaml.safe_load(options.spec)}
                wanted = Wanted(options.alpha, options.delta, spec, options.keep, options.halves)
                found += apart(ours, draw, wanted, progress=progress)
            if "tracer-llm" in options.systems:
                progress("fitting tracer-llm (minutes)", 0, 1)
                found += peers(draw, options.alpha, options.delta, options.peer_skip)
                progress("fitting tracer-llm (minutes)", 1, 1)
            rows += [replace(row, draw=seed + row.draw, noise=options.noise) for row in found]
            progress("draws", done, options.resamples)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    out.print(
        f"{options.dataset}: {rows[0].traces:,} traces, {len(data.test):,} test rows; teacher: {data.teacher}", end=""
    )
    out.print(f", {options.noise:.0%} replaced by a near neighbour's (seed 0)" if options.noise else "")
    out.print(table(rows))


if __name__ == "__main__":
    main()
