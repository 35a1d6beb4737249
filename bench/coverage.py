"""How much traffic is handled at a required agreement, and how much agreement is kept: tracer-llm and tracer-serve.

    python -m bench.coverage --dataset banking77 --alpha 0.95 0.97 0.99

Both systems get the same vectors and the same labels. Each fits on the train rows, or a random part of them, in a
process of its own, and is judged on the untouched test rows, once per alpha; tracer-serve without and with its scope
guard. A fit is counted once: CPU seconds and peak memory are those of the fit that serves all alphas of its rows.

    python -m bench.coverage --dataset sick --systems tracer-serve --surrogates logreg encoder --halves 20

A fit of minutes is not repeated: with ``--halves`` the fitted policy is certified anew on one half of the test rows, as
`gate.mode: strict` does on its fifth, and judged on the other half, near-duplicates together.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from bench.data import DATASETS, ENCODER, Dataset, Given, Part, load, with_noise
from bench.peer import run_in_peer
from tracer_serve.console import progress_bar
from tracer_serve.fit.fitted import Fitted
from tracer_serve.fit.folds import burst_groups, holdout
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.rows import Progress, Rows
from tracer_serve.gate.certify import certify
from tracer_serve.gate.classes import class_thresholds
from tracer_serve.gate.scope import scope_threshold
from tracer_serve.load import Task
from tracer_serve.pairs import PairEmbedder
from tracer_serve.policy import Policy
from tracer_serve.records import Bools, Labels
from tracer_serve.registry import embedders
from tracer_serve.spec.task import Spec
from tracer_serve.stages import Asked

KEEPS = (1.0, 0.98, 0.97)
_KEEP = (0.98,)  # of a cascade, which is fitted anew for each
OURS: dict[str, Any] = {"surrogates": ["blend"], "acceptors": ["logistic"]}
_PRICED = {"model": ENCODER, "backend": "onnx"}  # what embedding costs where a cascade may spare it
_SHARES = ("coverage", "agreement", "worst_class", "oos_accepted", "first_share")
_FEWEST = 20  # handled rows below which a class's agreement is noise

_PEER = """
import json, tempfile, time
from pathlib import Path
import numpy as np
import tracer.api as api
from tracer.config import FitConfig
from tracer.fit.ood import fit_ood_gate
from tracer.fit.pipeline import route_pipeline
from tracer.runtime.router import Router

def main(a):
    frontier, fit_frontier = [], api.fit_frontier
    def keep(*args, **kwargs):
        found = fit_frontier(*args, **kwargs)
        frontier.extend(found[0])
        return found
    api.fit_frontier = keep  # only to look at what its one fit found for each target
    folder = Path(tempfile.mkdtemp())
    rows = [json.dumps({"input": t, "teacher": y}) for t, y in zip(a["texts"], a["labels"])]
    (folder / "traces.jsonl").write_text("\\n".join(rows) + "\\n")
    alphas, x = a["alphas"], a["vectors"]
    config = FitConfig(target_teacher_agreement=alphas[0], frontier_targets=tuple(alphas),
                       skip_candidates=tuple(a["skip"]))
    cpu = time.process_time()
    manifest = api.fit(folder / "traces.jsonl", folder / "artifacts", embeddings=x, config=config).manifest
    out = {"fit_cpu_s": time.process_time() - cpu}
    for i, alpha in enumerate(alphas):
        best = next(f["best"] for f in frontier if abs(f["target"] - alpha) < 1e-9)
        if not (best and best["stages"]):
            continue
        names = dict(enumerate(manifest.label_space))
        guard = fit_ood_gate(x, [names.get(int(p), "?") for p in route_pipeline(best["stages"], x)[0]])
        router = Router(best["stages"], manifest.label_space, manifest, ood_gate=guard, train_embeddings=x)
        for part in ("test", "foreign"):
            if len(a[part]):
                seen = router.predict_batch(a[part])
                out[f"{part}_{i}"] = np.array([label or "" for label in seen["labels"]])
    return out
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One system at one alpha on one draw of traces.

    Parameters
    ----------
    coverage : share of the test rows that is handled
    agreement : share of those on which the teacher agrees, None where nothing is handled
    worst_class : least such share over the given labels with at least 20 handled rows
    certified_coverage : what the certificate says; None for the peer, which states it of other rows
    oos_accepted : share of out-of-scope inputs that is handled, None where the dataset has none
    first_share : share of the test rows that a cascade's first stage handles, None where there is one stage
    cpu_s, peak_mb : of the fit, in its own process
    """

    system: str
    dataset: str
    traces: int
    draw: int
    noise: float
    alpha: float
    delta: float
    scope_keep: float | None
    coverage: float
    agreement: float | None
    worst_class: float | None
    certified_coverage: float | None
    oos_accepted: float | None
    cpu_s: float
    peak_mb: float
    first_share: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What our system is asked for.

    Parameters
    ----------
    spec : laid over the task's
    keeps : scope guards; none: `KEEPS`, of a cascade the default one
    halves : how many halves of the test rows certify the fitted policy anew
    """

    alphas: Sequence[float]
    delta: float
    spec: dict[str, Any]
    keeps: Sequence[float] = ()
    halves: int = 0


def judge(given: Labels, handled: Bools, foreign: Bools, truth: Labels, **facts: Any) -> Row:
    """Compare the given labels (n,) with the teacher's on what is handled (n,); `foreign` (m,) = handled as well."""
    right = given == truth
    classes = [right[handled & (given == label)] for label in np.unique(given[handled])]
    shares = [float(rows.mean()) for rows in classes if len(rows) >= _FEWEST]
    return Row(
        coverage=float(handled.mean()),
        agreement=float(right[handled].mean()) if handled.any() else None,
        worst_class=min(shares, default=None),
        oos_accepted=float(foreign.mean()) if len(foreign) else None,
        **facts,
    )


def ours(data: Dataset, wanted: Wanted, progress: Progress) -> list[Row]:
    """Fit once by the product's own `fit_policy`, certify at each alpha, judge on the test rows.

    A cascade is fitted anew for each alpha and guard, on which its stages' places on one path depend.
    """
    cascade = "cascade" in wanted.spec.get("gate", {}).get("families", ())
    if cascade and wanted.halves:
        raise SystemExit("halves are for policies of one stage")
    keeps = wanted.keeps or (_KEEP if cascade else KEEPS)
    asked = [(alpha, keep) for alpha in wanted.alphas for keep in keeps]
    rows = []
    for fits in [[one] for one in asked] if cascade else [asked]:
        task = _task(data, wanted, *fits[0])
        started = time.process_time()
        encoder = embedders.build("sentence_transformers", _PRICED)
        embedder = Given(data.train, uncached=PairEmbedder(encoder) if data.name == "sick" else encoder)
        fitted = fit_policy(task, Rows.of(data.train.texts, data.train.labels), embedder, progress)
        cost = {"cpu_s": time.process_time() - started, "peak_mb": peak_mb(), "delta": wanted.delta, **_of(data)}
        once = None if cascade else [_ask(fitted.policy, part) for part in (data.test, data.foreign) if len(part)]
        for alpha, keep in fits:
            policy = fitted.policy if cascade else certified_at(fitted, task, data, alpha, keep)
            facts = {"system": "tracer-serve", "alpha": alpha, "scope_keep": keep, **cost}
            rows.append(_judged(policy, data, once, facts))
        if once is not None:
            for draw in range(wanted.halves):
                rows += halved(fitted, data.test, once[0], wanted.alphas, {**cost, "draw": draw})
    return rows


def _task(data: Dataset, wanted: Wanted, alpha: float, keep: float) -> Task:
    required = {"name": "bench", "teacher": "offline", "input": "pair" if data.name == "sick" else "text"}
    required["embedder"] = "sentence_transformers"  # whose vectors are given; a surrogate may name another one
    gate = {"scope": {"keep": keep}} | wanted.spec.get("gate", {}) | {"alpha": alpha, "delta": wanted.delta}
    return Task(Spec.model_validate({**required, **wanted.spec, "gate": gate}), Path("bench"), "")


def _judged(policy: Policy, data: Dataset, once: list[Asked] | None, facts: dict[str, Any]) -> Row:
    if once is None:
        (handled, given, first), (foreign, _, _) = (_decide(policy, part) for part in (data.test, data.foreign))
    else:
        handled, foreign = [*(_handled(policy, asked) for asked in once), np.zeros(0, bool)][:2]
        given, first = policy.classes[once[0].top], handled
    row = judge(given, handled, foreign, data.test.labels, certified_coverage=policy.certificate.coverage, **facts)
    return replace(row, first_share=float(first.mean()) if len(policy.stages) > 1 else None)


def halved(fitted: Fitted, test: Part, asked: Asked, alphas: Sequence[float], facts: dict[str, Any]) -> list[Row]:
    """Certify the fitted policy on a random half of the test rows, none of which it has seen; judge on the other."""
    policy, draw = fitted.policy, facts["draw"]
    given, calibrates = policy.classes[asked.top], holdout(test.texts, 0.5, draw)
    guard, judged = scope_threshold(fitted.calibration.scope, KEEPS[0]), ~calibrates
    rows = []
    for alpha in alphas:
        found = certify(
            asked.score[calibrates],
            (given == test.labels)[calibrates],
            alpha=alpha,
            delta=facts["delta"],
            mode="strict",
            eligible=(asked.scope >= guard)[calibrates],
            groups=burst_groups(test.texts)[calibrates],
            seed=draw,
        )
        handled = found.certified & (asked.scope >= guard) & (asked.score >= found.threshold)
        own = {"system": "tracer-serve, halves", "alpha": alpha, "scope_keep": KEEPS[0]}
        own |= {"certified_coverage": found.coverage if found.certified else 0.0}
        rows.append(judge(given[judged], handled[judged], np.zeros(0, bool), test.labels[judged], **own, **facts))
    return rows


def certified_at(fitted: Fitted, task: Task, data: Dataset, alpha: float, keep: float) -> Policy:
    """Certify the fitted policy anew, as `fit_policy` does, at another alpha and another scope guard."""
    seen, gate = fitted.calibration, task.spec.gate
    guard = scope_threshold(seen.scope, keep)
    certificate = certify(
        seen.score,
        seen.agreed,
        alpha=alpha,
        delta=gate.delta / fitted.certificate.rivals,
        mode=fitted.certificate.mode,
        min_coverage=gate.min_coverage,
        eligible=seen.scope >= guard,
        groups=burst_groups([data.train.texts[i] for i in seen.row]),
        seed=task.spec.fit.seed,
    )
    stages = tuple(replace(stage, scope_threshold=guard) for stage in fitted.policy.stages)
    return replace(fitted.policy, certificate=certificate, stages=stages)


def peers(data: Dataset, alphas: Sequence[float], delta: float, skip: Sequence[str] = ()) -> list[Row]:
    """Fit tracer-llm once, its frontier at all alphas, and let its router decide on the test rows.

    `skip` names candidates of its sweep to leave out.
    """
    texts = [text if isinstance(text, str) else " | ".join(text) for text in data.train.texts]
    arrays = {"texts": texts, "labels": data.train.labels.tolist(), "vectors": data.train.vectors}
    arrays |= {"test": data.test.vectors, "foreign": data.foreign.vectors, "alphas": list(alphas), "skip": list(skip)}
    found = run_in_peer(_PEER, arrays)
    rows = []
    for i, alpha in enumerate(alphas):
        given = found.get(f"test_{i}", np.full(len(data.test), ""))
        foreign = found.get(f"foreign_{i}", np.full(len(data.foreign), ""))
        facts = {"system": "tracer-llm", "alpha": alpha, "delta": delta, "scope_keep": None, **_of(data)}
        cost = {"cpu_s": found["fit_cpu_s"], "peak_mb": found["peak_mb"], "certified_coverage": None}
        rows.append(judge(given, given != "", foreign != "", data.test.labels, **facts, **cost))
    return rows


def peak_mb() -> float:
    """Return the peak resident memory of this process since it started its program, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says includes the parent's memory at the time of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def draws(data: Dataset, traces: int | None, seeds: range) -> Iterator[tuple[int, Dataset]]:
    """Yield seed and dataset: with all its train rows, or with a random part of them per seed."""
    for seed in seeds:
        if traces is None or traces >= len(data.train):
            yield 0, data
            return
        rows = np.random.default_rng(seed).permutation(len(data.train))[:traces]
        yield seed, replace(data, train=data.train.take(rows))


def _of(data: Dataset) -> dict[str, Any]:
    return {"dataset": data.name, "traces": len(data.train), "draw": 0, "noise": 0.0}


def _ask(policy: Policy, part: Part) -> Asked:
    """Ask a policy of one stage about each row, once for all alphas, guards and halves: an encoder takes its time."""
    (stage,) = policy.stages
    given = {stage.view: part.vectors} if isinstance(stage.view.embedder, Given) else {}
    (asked,) = policy.ask_all(part.texts, given)
    return asked


def _handled(policy: Policy, asked: Asked) -> Bools:
    (stage,), threshold = policy.stages, class_thresholds(policy.certificate, policy.classes)
    passes: Bools = np.isfinite(asked.score) & (asked.score >= threshold[asked.top])
    return passes & stage.open[asked.top] & (asked.scope >= stage.scope_threshold)


def _decide(policy: Policy, part: Part) -> tuple[Bools, Labels, Bools]:
    """Return what is handled, the labels, and what a cascade's first stage handles."""
    if not len(part):
        return np.zeros(0, bool), np.zeros(0, np.str_), np.zeros(0, bool)
    given = {view: part.vectors for view in policy.views if isinstance(view.embedder, Given)}
    seen = policy.score(part.texts, given)
    return seen.handled, policy.classes[seen.top], seen.handled & (seen.stage == 0)


def _child(connection: Connection, data: Dataset, wanted: Wanted) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        connection.send((stage, done, total))

    connection.send(ours(data, wanted, progress))


def apart(data: Dataset, wanted: Wanted, progress: Progress) -> list[Row]:
    """Call `ours` in a new process, so that CPU and memory are its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, data, wanted), daemon=True)
    child.start()
    there.close()
    try:
        while isinstance(message := here.recv(), tuple):
            progress(*message)
    except EOFError:
        raise SystemExit("the fit's process died; its message stands above") from None
    child.join()
    rows: list[Row] = message
    return rows


def table(rows: Sequence[Row]) -> Table:
    """Return the means over the draws, a line per system, alpha and guard."""
    out = Table(
        "system", "alpha", "scope keep", "coverage", "agreement", "worst class", "oos accepted", "first stage", "CPU s",
        "peak MB",
    )  # fmt: skip
    out.columns[0].no_wrap = True
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.alpha, row.system, row.scope_keep), []).append(row)
    for (alpha, system, keep), group in sorted(groups.items(), key=str):

        def mean(field: str, scale: float, group: list[Row] = group) -> str:
            values = [getattr(row, field) for row in group if getattr(row, field) is not None]
            return f"{scale * np.mean(values):.1f}" if values else "-"

        shares = [mean(field, 100) for field in _SHARES]
        guard = "its own" if keep is None else "off" if keep >= 1 else f"{keep:g}"
        out.add_row(system, f"{alpha:g}", guard, *shares, mean("cpu_s", 1), mean("peak_mb", 1))
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", choices=DATASETS, default="banking77")
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
    parser.add_argument("--halves", type=int, default=0, help="certify our one fit on so many halves of the test rows")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with progress_bar() as progress:
        data = load(options.dataset, lambda done, total: progress("embedding", done, total))
        data = with_noise(data, options.noise) if options.noise else data
        seeds = range(options.first_draw, options.first_draw + options.resamples)
        for done, (seed, draw) in enumerate(draws(data, options.traces, seeds), 1):
            found: list[Row] = []
            if "tracer-serve" in options.systems:
                spec = {**OURS, "surrogates": options.surrogates, **yaml.safe_load(options.spec)}
                found += apart(draw, Wanted(options.alpha, options.delta, spec, options.keep, options.halves), progress)
            if "tracer-llm" in options.systems:
                progress("fitting tracer-llm (minutes)", 0, 1)
                found += peers(draw, options.alpha, options.delta, options.peer_skip)
                progress("fitting tracer-llm (minutes)", 1, 1)
            rows += [replace(row, draw=seed + row.draw, noise=options.noise) for row in found]
            progress("draws", done, options.resamples)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f"{options.dataset}: {rows[0].traces:,} traces, {len(data.test):,} test rows; teacher: gold labels", end=""
    )
    console.print(f", {options.noise:.0%} replaced by a near neighbour's (seed 0)" if options.noise else "")
    console.print(table(rows))


if __name__ == "__main__":
    main()
