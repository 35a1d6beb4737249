"""Alarms of the monitor with and without drift, on CLINC150, whose parts were collected differently.

    python -m bench.monitor --alpha 0.95 0.97 0.98 0.985 0.99
    python -m bench.monitor --costs

Train and test of CLINC150 were collected differently: agreement on the test part is a point or two lower, which a
certificate on the train part cannot detect. A policy certified on the train rows handles the test rows, each handled
row is an audit, in many random orders. Beside it random splits of both parts together, where nothing has changed. An
alarm is right where the true agreement is under alpha and false where it is not.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from bench.audit_cost import costs, lines
from bench.data import Dataset, Given, Part, load
from bench.shown import show
from tracer_serve.cli.console import out, progress_bar
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.monitor import advance, alternatives, log_evidence
from tracer_serve.types import Bools, Ints

DELTA = 0.05
_NAMES = ("split", "alpha", "coverage", "certified", "true", "audits", "alarms", "audits to the alarm, median")


@dataclass(frozen=True, slots=True)
class Row:
    """One policy, one alpha.

    Parameters
    ----------
    split : ``train to test``, or ``pooled K``
    coverage : certified share; 0 if nothing was
    reported, agreement : on the certificate's rows, on the handled rows of the other part
    audits : handled rows of the other part
    alarms, runs : orders of them in which the monitor raised an alarm, and number of orders
    delay : median audits until the alarm
    """

    split: str
    alpha: float
    coverage: float
    reported: float
    agreement: float
    audits: int
    alarms: int
    runs: int
    delay: float | None
    system: str = "tracer-serve"
    dataset: str = "clinc150"
    delta: float = DELTA


def first_alarms(agreed: Bools, orders: int, alpha: float, seed: int = 0) -> Ints:
    """Return the audit of the first alarm in each random order of n outcomes, n + 1 if there is none."""
    rng, n = np.random.default_rng(seed), len(agreed)
    outcomes = np.stack([rng.permutation(agreed) for _ in range(orders)])
    bets, first = np.full((orders, len(alternatives(alpha))), -np.inf), np.full(orders, n + 1)
    for i in range(1, n + 1):
        bets = advance(bets, i, outcomes[:, i - 1], alpha)
        rings = (log_evidence(bets, i) >= -np.log(DELTA)) & (first > n)
        first[rings] = i
    return first


def judge(split: str, known: Part, later: Part, spec: dict[str, Any], orders: int) -> Row:
    """Certify on one part; count the alarms on the other."""
    task = Task(Spec.model_validate({"name": "bench", "teacher": "offline"} | spec), Path("bench"), "")
    policy = fit_policy(task, Rows.of(known.texts, known.labels), Given(known)).policy
    seen, certificate = policy.score(later.texts, {policy.view: later.vectors}), policy.certificate
    agreed = (policy.classes[seen.top] == later.labels)[seen.handled]
    first = first_alarms(agreed, orders, task.spec.gate.alpha)
    rang = first[first <= len(agreed)]
    return Row(
        split=split,
        alpha=task.spec.gate.alpha,
        coverage=certificate.coverage if certificate.certified else 0.0,
        reported=certificate.agreements / max(certificate.n, 1),
        agreement=float(agreed.mean()) if len(agreed) else 1.0,
        audits=len(agreed),
        alarms=len(rang),
        runs=orders,
        delay=float(np.median(rang)) if len(rang) else None,
    )


def splits(data: Dataset, pooled: int) -> Iterator[tuple[str, Part, Part]]:
    """Yield train to test, then random splits of both together, of the same sizes."""
    yield "train to test", data.train, data.test
    both = Part(
        [*data.train.texts, *data.test.texts],
        np.concatenate([data.train.labels, data.test.labels]),
        np.concatenate([data.train.vectors, data.test.vectors]),
    )
    for seed in range(pooled):
        order = np.random.default_rng(seed).permutation(len(both))
        known, later = np.split(order, [len(data.train)])
        yield f"pooled {seed}", both.take(known), both.take(later)


def table(rows: Sequence[Row]) -> Table:
    """Return a line per policy and alpha."""
    shown = Table(*_NAMES)
    for row in rows:
        shares = [f"{100 * share:.1f}" for share in (row.coverage, row.reported, row.agreement)]
        delay = "" if row.delay is None else f"{row.delay:,.0f}"
        shown.add_row(row.split, f"{row.alpha:g}", *shares, f"{row.audits:,}", f"{row.alarms} of {row.runs}", delay)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.95, 0.97, 0.98, 0.985, 0.99])
    parser.add_argument("--orders", type=int, default=40, help="random orders of the audits")
    parser.add_argument("--pooled", type=int, default=4, help="random splits of both parts together")
    parser.add_argument("--spec", default="{surrogates: [logreg], fit: {folds: 5}}", help="YAML laid over our spec")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    parser.add_argument("--costs", action="store_true", help="cost of audit_rate: auto against the best fixed rate")
    options = parser.parse_args(arguments)
    if options.costs:
        shown = Table("handled a day", "auto", "cost", "best fixed", "cost", "ratio")
        for line in lines([*costs()]):
            shown.add_row(*line)
        out.print(shown)
        return
    rows: list[Row] = []
    with progress_bar() as progress:
        data = load("clinc150", lambda done, total: progress("embedding", done, total))
        spec, many = yaml.safe_load(options.spec), (options.pooled + 1) * len(options.alpha)
        for name, known, later in splits(data, options.pooled):
            for alpha in options.alpha:
                progress("policies", len(rows), many)
                gate = {"alpha": alpha, "delta": DELTA}
                rows.append(judge(name, known, later, {**spec, "gate": gate}, options.orders))
        progress("policies", many, many)
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
