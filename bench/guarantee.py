"""Rate of wrong certificates: the gates of tracer-llm and tracer-serve on the same draws, with known truth.

    python -m bench.guarantee --runs 400 --fits 40

``gate`` rows give both gates the same scores and agreements, 2,000 rows a draw. ``fit`` rows give both systems the same
traces, the same kind of model (logistic regression), and judge on 20,000 fresh rows. A draw is violated where traffic
whose agreement is under alpha is handled. Both promise at most 10 %, tracer-llm's default; given the scores,
tracer-serve also 5 %.

    python -m bench.guarantee --worlds templates bursts --systems tracer-serve,before

``--worlds`` plays the worlds that break independence instead (`bench.worlds`), with tracer-serve's gate, and with it as
it was before it had a remedy. Draws end when it is clear on which side of the limit the rate of wrong certificates is.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from scipy.stats import binomtest

from bench.data import Given, Part
from bench.peer import run_in_peer
from bench.shown import show
from bench.skew import SKEWED
from bench.worlds_table import WORLDS, world_rows, world_table
from tracer_serve.cli.console import progress_bar
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import Progress
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.types import Bools, Floats

SYSTEMS = ("tracer-serve", "tracer-llm")
ALPHAS = (0.9, 0.95)
PEER_DELTA = 0.1
DELTAS = {"tracer-serve": (PEER_DELTA, 0.05), "tracer-llm": (PEER_DELTA,)}
ROWS = 2000
_SKEWED_ALPHA = 0.9
_GATE_RUNS, _WORLD_RUNS = 400, 600
_AT_ONCE = 10  # draws per start of the peer's interpreter

Draw = tuple[Part, Part]
"""Traces to fit on, and fresh rows to judge on."""

# The peer's l2d gate on scores and its accept-all gate, the better of the two, as its fit chooses.
_PEER_GATE = """
import numpy as np
from tracer.fit.pipeline import _calibrate_threshold, _cp_lower
def main(a):
    thresholds = []
    for scores, agreed, labels in zip(a["scores"], a["agreed"], a["labels"]):
        predicted = np.where(agreed, labels, labels + 1)
        found = _calibrate_threshold(scores, predicted, labels, a["alpha"])
        everything = _cp_lower(int(agreed.sum()), len(agreed), 0.1) >= a["alpha"]
        thresholds.append(-np.inf if everything else np.inf if found is None else found["threshold"])
    return {"thresholds": np.array(thresholds)}
"""

# The peer's whole fit; only logistic regression of its candidates, so that both systems compare gates and not models.
_PEER_FIT = """
import numpy as np
from tracer.fit.pipeline import fit_frontier, route_pipeline
OTHERS = ("logreg_c1", "sgd_log", "mlp_1h", "mlp_2h", "dt", "rf", "et", "gbt", "xgb")
def one(labels, vectors, fresh, alpha):
    names, y = np.unique(labels, return_inverse=True)
    best = fit_frontier(vectors, y, [alpha], skip=OTHERS)[0][0]["best"]
    if not (best and best["stages"]):
        return np.full(len(fresh), "")
    predicted, handled, _ = route_pipeline(best["stages"], fresh)
    return np.where(handled, names[np.maximum(predicted, 0)], "")
def main(a):
    return {f"given{i}": one(a[f"labels{i}"], a[f"vectors{i}"], a[f"fresh{i}"], a["alpha"]) for i in range(a["draws"])}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One system on many draws of one kind of traffic.

    Parameters
    ----------
    part : ``gate`` (scores given) or ``fit`` (whole fits)
    delta : the violation rate that is promised
    violations, draws : draws in which handled traffic is truly under alpha, of all
    rate, rate_low, rate_high : share of violations with its 95 % Clopper-Pearson interval
    certified : share of draws in which anything is handled
    coverage, agreement : means over the draws of the handled share, and over what is handled of the true agreement
    """

    part: str
    traffic: str
    system: str
    alpha: float
    delta: float
    violations: int
    draws: int
    rate: float
    rate_low: float
    rate_high: float
    certified: float
    coverage: float
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores u ~ U(0, 1), P(agree | u) as a function of u, and P(agree | u >= t) as one of t.

    ``uninformative -.001``: agreement is .001 under alpha at every score.
    """

    name: str
    given: Callable[[Floats, float], Floats]
    above: Callable[[float, float], float]

    def draw(self, rng: np.random.Generator, alpha: float, runs: int) -> tuple[Floats, Bools]:
        """Draw scores and agreements, shape (runs, ROWS) each."""
        u = rng.random((runs, ROWS))
        return u, rng.random((runs, ROWS)) < self.given(u, alpha)


SCORED = (
    Scored("uninformative -.001", lambda u, a: np.full_like(u, a - 0.001), lambda _, a: a - 0.001),
    Scored("uninformative -.005", lambda u, a: np.full_like(u, a - 0.005), lambda _, a: a - 0.005),
    Scored(
        "informative",
        lambda u, a: 1 - 4 * (1 - a) * (1 - u) ** 1.5,
        lambda t, a: 1 - 1.6 * (1 - a) * (1 - t) ** 1.5,
    ),
)


def summary(
    results: Sequence[tuple[float, float]], *, part: str, traffic: str, system: str, alpha: float, delta: float
) -> Row:
    """Sum up (coverage, true agreement) of the draws; coverage 0 if the gate abstained."""
    coverage, agreement = np.array(results).T
    handles = coverage > 0
    wrong = int((handles & (agreement < alpha - 1e-9)).sum())
    test = binomtest(wrong, len(results)).proportion_ci(0.95)
    return Row(
        part=part,
        traffic=traffic,
        system=system,
        alpha=alpha,
        delta=delta,
        violations=wrong,
        draws=len(results),
        rate=wrong / len(results),
        rate_low=float(test.low),
        rate_high=float(test.high),
        certified=float(handles.mean()),
        coverage=float(coverage.mean()),
        agreement=float(np.average(agreement[handles], weights=coverage[handles])) if handles.any() else None,
    )


def gate_rows(runs: int, systems: Sequence[str], progress: Progress) -> Iterator[Row]:
    """Give both gates the same scores."""
    for number, (world, alpha) in enumerate((world, alpha) for world in SCORED for alpha in ALPHAS):
        rng = np.random.default_rng(number)
        scores, agreed = world.draw(rng, alpha, runs)
        labels = rng.integers(0, 20, scores.shape)
        for system in systems:
            for delta in DELTAS[system]:
                if system == "tracer-llm":
                    arrays = {"scores": scores, "agreed": agreed, "labels": labels, "alpha": alpha}
                    thresholds = run_in_peer(_PEER_GATE, arrays)["thresholds"]
                else:
                    thresholds = np.array([_ours(*draw, alpha, delta) for draw in zip(scores, agreed, strict=True)])
                starts = np.clip(thresholds, 0.0, 1.0)
                found = [(1.0 - t, world.above(float(t), alpha)) for t in starts]
                yield summary(found, part="gate", traffic=world.name, system=system, alpha=alpha, delta=delta)
        progress("gates on given scores", number + 1, len(SCORED) * len(ALPHAS))


def fit_rows(seeds: range, traffics: Sequence[str], systems: Sequence[str], progress: Progress) -> Iterator[Row]:
    """Let both systems fit the same skewed traces, at the peer's delta; judge on fresh rows."""
    done, total = 0, len(seeds) * len(traffics)
    for traffic in traffics:
        found: dict[str, list[tuple[float, float]]] = {}
        for first in range(seeds.start, seeds.stop, _AT_ONCE):
            draws = [SKEWED[traffic](seed) for seed in range(first, min(first + _AT_ONCE, seeds.stop))]
            for system in systems:
                found.setdefault(system, []).extend(_FITS[system](draws))
            done += len(draws)
            progress("whole fits on skewed traffic", done, total)
        for system, results in found.items():
            yield summary(results, part="fit", traffic=traffic, system=system, alpha=_SKEWED_ALPHA, delta=PEER_DELTA)


def _ours(scores: Floats, agreed: Bools, alpha: float, delta: float) -> float:
    found = certify(CalibrationRows(scores, agreed), GateSettings(alpha=alpha, delta=delta))
    return found.threshold if found.certified else math.inf


def _fit_ours(draws: Sequence[Draw]) -> list[tuple[float, float]]:
    spec = {"surrogates": ["logreg"], "acceptors": ["logistic"], "gate": {"alpha": _SKEWED_ALPHA, "delta": PEER_DELTA}}
    task = Task(Spec.model_validate({"name": "bench", "teacher": "offline", **spec}), Path("bench"), "")
    found = []
    for traces, fresh in draws:
        policy = fit_policy(task, Rows.of(traces.texts, traces.labels), Given(traces)).policy
        seen = policy.score(fresh.texts, {policy.view: fresh.vectors})
        found.append(_judged(seen.handled, policy.classes[seen.top] == fresh.labels))
    return found


def _fit_peer(draws: Sequence[Draw]) -> list[tuple[float, float]]:
    arrays: dict[str, Any] = {"alpha": _SKEWED_ALPHA, "draws": len(draws)}
    for i, (traces, fresh) in enumerate(draws):
        arrays |= {f"vectors{i}": traces.vectors, f"labels{i}": traces.labels, f"fresh{i}": fresh.vectors}
    given = run_in_peer(_PEER_FIT, arrays)
    return [_judged(given[f"given{i}"] != "", given[f"given{i}"] == fresh.labels) for i, (_, fresh) in enumerate(draws)]


_FITS = {"tracer-serve": _fit_ours, "tracer-llm": _fit_peer}


def _judged(handled: Bools, right: Bools) -> tuple[float, float]:
    return float(handled.mean()), float(right[handled].mean()) if handled.any() else 0.0


def table(rows: Sequence[Row]) -> Table:
    """Return a line per system and kind of traffic; red where the 95 % interval lies above the promise."""
    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("traffic", "alpha", "system", "<=", "violated", "cover", "agree"):
        shown.add_column(name, no_wrap=True)
    for row in rows:
        style = "bold red" if row.rate_low > row.delta else "green"
        rate = f"[{style}]{row.violations}/{row.draws} {row.rate:.1%}[/]"
        agreement = "-" if row.agreement is None else f"{row.agreement:.1%}"
        promised, coverage = f"{row.delta:.0%}", f"{row.coverage:.1%}"
        shown.add_row(row.traffic, f"{row.alpha:g}", row.system, promised, rate, coverage, agreement)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.guarantee", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", nargs="+", choices=sorted({world.name for world in WORLDS}), help="worlds to play")
    parser.add_argument("--runs", type=int, help="draws per kind of scores, 0 for none (400); most of a world (600)")
    parser.add_argument("--fits", type=int, default=40, help="whole fits per kind of skewed traffic; 0 for none")
    parser.add_argument("--first-fit", type=int, default=0, help="seed of the first of them: a long run in pieces")
    parser.add_argument("--traffic", nargs="+", choices=[*SKEWED], default=[*SKEWED], help="kinds of skewed traffic")
    parser.add_argument("--systems", help="comma-separated; default: all")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    known = ("tracer-serve", "before") if options.worlds else SYSTEMS
    systems = options.systems.split(",") if options.systems else known
    if unknown := set(systems) - set(known):
        parser.error(f"unknown system {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    runs = options.runs if options.runs is not None else _WORLD_RUNS if options.worlds else _GATE_RUNS
    if options.worlds:
        with progress_bar(quiet=options.json) as progress:
            played = [*world_rows(options.worlds, systems, runs, progress)]
        show(played, world_table(played), as_json=options.json)
        return
    with progress_bar(quiet=options.json) as progress:
        rows = [*gate_rows(runs, systems, progress)] if runs else []
        seeds = range(options.first_fit, options.first_fit + options.fits)
        rows += fit_rows(seeds, options.traffic, systems, progress) if options.fits else []
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
