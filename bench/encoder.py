"""A fine-tuned encoder on sentence pairs (SICK): certified coverage over resampled splits, and the time of an answer.

    python -m bench.encoder --resamples 20
    python -m bench.encoder --keep FOLDER --latency
    python -m bench.encoder --task configs/sick_encoder.yaml

One training on the official train rows. The test rows, none of which was trained on, are then split per draw,
near-duplicates together: one part calibrates a strict certificate, which is judged on the other part. ``--latency``
asks about single pairs, one after the other: the encoder's graph beside the path of frozen embeddings (both sides
embedded by an 8-bit graph, then the default blend), in the same process and on the same pairs. ``--task`` does so with
the version that a fitted task serves: its embedder alone, and its policy, by the stage that answers or defers.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from bench.data import ENCODER, read
from tracer_serve.cli.console import out, progress_bar
from tracer_serve.components.embedders._pairs import PairEmbedder
from tracer_serve.components.factory import load_plugins, make_embedders
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import embedders, surrogates
from tracer_serve.components.surrogates.encoder import Encoder
from tracer_serve.config.load import load_task
from tracer_serve.fit.folds import newest_holdout
from tracer_serve.fit.groups import groups_of
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.policy.policy import Policy
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.types import Bools, Floats, Inputs, Labels, Text, Vectors

_TRAINED_BLEND = 1500  # rows: the cost of a prediction does not depend on their number
_WARM, _ASKED = 20, 400


@dataclass(frozen=True, slots=True)
class Row:
    """One split at one alpha.

    Parameters
    ----------
    certified : what the certificate says its coverage is
    coverage, agreement : on the judged rows; None if nothing is handled
    """

    system: str
    dataset: str
    alpha: float
    delta: float
    draw: int
    calibration: int
    certified: float
    coverage: float
    agreement: float | None
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Latency of single answers of one path, milliseconds.

    Parameters
    ----------
    share : share of the pairs that take this path
    """

    system: str
    share: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def given(texts: Sequence[Text]) -> Inputs:
    """Return texts as inputs of a surrogate that reads no vectors."""
    return Inputs(texts, np.zeros((len(texts), 1), np.float32))


def trained(rows: tuple[list[Text], Labels], params: dict[str, Any], keep: Path | None) -> tuple[Encoder, float]:
    """Return the encoder and the CPU seconds of its training; 0 if it is loaded from `keep`."""
    if keep is not None and keep.exists():
        found: Encoder = load_component(Encoder, keep)
        return found, 0.0
    began = time.process_time()
    encoder = surrogates.build("encoder", params).fit(given(rows[0]), rows[1])
    if keep is not None:
        save_component(encoder, keep)
    assert isinstance(encoder, Encoder)
    return encoder, time.process_time() - began


def split(texts: Sequence[Text], score: Floats, agreed: Bools, draw: int, alpha: float, **facts: Any) -> Row:
    """Certify on one half of n rows and judge on the other."""
    groups = groups_of(texts)
    calibrates = newest_holdout(groups, np.ones(len(groups), bool), 0.5, draw)
    found = certify(
        CalibrationRows(score[calibrates], agreed[calibrates], groups=groups[calibrates]),
        GateSettings(alpha=alpha, delta=facts["delta"], seed=draw),
    )
    handled = found.certified & (score[~calibrates] >= found.threshold)
    return Row(
        alpha=alpha,
        draw=draw,
        calibration=int(calibrates.sum()),
        certified=found.coverage if found.certified else 0.0,
        coverage=float(handled.mean()),
        agreement=float(agreed[~calibrates][handled].mean()) if handled.any() else None,
        **facts,
    )


def timed(answer: Callable[[Text], object], texts: Sequence[Text]) -> Vectors:
    """Ask about one text after the other; wall time and CPU of each in milliseconds, shape (2, n)."""
    for text in texts[:_WARM]:
        answer(text)
    took = []
    for text in texts:
        began, cpu = time.perf_counter(), time.process_time()
        answer(text)
        took.append((time.perf_counter() - began, time.process_time() - cpu))
    return 1e3 * np.array(took, np.float32).T


def speed(system: str, took: Vectors, share: float = 1.0) -> Speed:
    """Return the percentiles of wall times and the mean CPU, (2, n)."""
    wall, cpu = took
    return Speed(system, share, float(np.percentile(wall, 50)), float(np.percentile(wall, 99)), float(cpu.mean()))


def served(file: Path, texts: Sequence[Text]) -> list[Speed]:
    """Time the version that a task serves, pair by pair: its embedder alone, its first stage, and the whole of it."""
    task = load_task(file)
    load_plugins(task)
    versions = LocalVersions(task.state / "versions")
    number = versions.current()
    if number is None:
        raise SystemExit(f"{file} serves no version: tracer-serve fit {file}")
    policy = Policy.load(versions.folder(number) / "model", *make_embedders(task))
    first = replace(policy, stages=policy.stages[:1])
    embedder, whole = policy.views[0].embedder, timed(lambda text: policy.score([text]), texts)
    seen = policy.score(texts)
    found = [speed("embedder alone", timed(lambda text: embedder.embed([text]), texts))]
    if len(policy.stages) > 1:
        found.append(speed(f"{first.names[0]} alone", timed(lambda text: first.score([text]), texts)))
    found.append(speed(f"{policy.names[0]}: all", whole))
    for stage in range(len(policy.stages)):
        for handled, verb in ((True, "answers"), (False, "defers")):
            rows = (seen.stage == stage) & (seen.handled == handled)
            if rows.any():
                found.append(speed(f"stage {stage + 1} {verb}", whole[:, rows], float(rows.mean())))
    return found


def speeds(encoder: Encoder, rows: tuple[list[Text], Labels], texts: Sequence[Text]) -> list[Speed]:
    """Time the encoder, the path of frozen embeddings, and both one after the other."""
    embedder = PairEmbedder(embedders.build("sentence_transformers", {"model": ENCODER, "backend": "onnx-int8"}))
    few = list(rows[0][:_TRAINED_BLEND])
    blend = surrogates.build("blend").fit(Inputs(few, embedder.embed(few)), rows[1][:_TRAINED_BLEND])

    def frozen(text: Text) -> object:
        return blend.predict_proba(Inputs([text], embedder.embed([text])))

    def tuned(text: Text) -> object:
        return encoder.predict_proba(given([text]))

    def both(text: Text) -> object:
        return frozen(text), tuned(text)

    bits = "8 bits" if encoder.tuned_ is not None and encoder.tuned_.served.eight_bits else "fp32"
    paths = {"frozen embeddings, blend": frozen, f"encoder, {bits}": tuned, "cascade, both stages": both}
    return [speed(system, timed(answer, texts)) for system, answer in paths.items()]


def show(rows: Sequence[Row], times: Sequence[Speed]) -> None:
    """Print the means over the draws, with the least and the most, and the times."""
    table = Table("alpha", "draws", "certified", "coverage", "least", "most", "agreement", "least", "draws under alpha")
    for alpha in sorted({row.alpha for row in rows}):
        group = [row for row in rows if row.alpha == alpha]
        coverage = [row.coverage for row in group]
        agreement = [row.agreement for row in group if row.agreement is not None]
        certified = float(np.mean([row.certified for row in group]))
        shares = [certified, float(np.mean(coverage)), min(coverage), max(coverage)]
        shares += [float(np.mean(agreement)), min(agreement)] if agreement else [float("nan")] * 2
        under = sum(share < alpha for share in agreement)
        table.add_row(f"{alpha:g}", str(len(group)), *(f"{100 * share:.1f}" for share in shares), str(under))
    if rows:
        out.print(table)
    if times:
        table = Table("one pair at a time", "share", "p50 ms", "p99 ms", "CPU ms")
        for one in times:
            table.add_row(one.system, f"{one.share:.0%}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.cpu_ms:.2f}")
        out.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.encoder", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.90, 0.95, 0.97], help="required agreement")
    parser.add_argument("--delta", type=float, default=0.05, help="probability that a certificate is wrong")
    parser.add_argument("--resamples", type=int, default=20, help="splits of the test rows")
    parser.add_argument("--params", default="{}", help='YAML of the encoder, as "{epochs: 3, seed: 1}"')
    parser.add_argument("--keep", type=Path, help="folder that the training is kept in, or taken from")
    parser.add_argument("--latency", type=int, nargs="?", const=_ASKED, default=0, help="single pairs to time")
    parser.add_argument("--task", type=Path, help="time the version that this fitted task serves, and nothing else")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    train, test = read("sick", "train"), read("sick", "test")
    if options.task:
        found = served(options.task, test[0][: options.latency or _ASKED])
        if options.json:
            print(json.dumps([asdict(one) for one in found], indent=1))
        else:
            show([], found)
        return
    with progress_bar() as progress:
        progress("training", 0, 1)
        encoder, cpu = trained(train, yaml.safe_load(options.params), options.keep)
        progress("training", 1, 1)
        proba = encoder.predict_proba(given(test[0]))
        agreed = encoder.classes_[proba.argmax(axis=1)] == test[1]
        facts = {"system": "tracer-serve", "dataset": "sick", "delta": options.delta, "cpu_s": cpu}
        rows = []
        for draw in range(options.resamples):
            rows += [split(test[0], proba.max(axis=1), agreed, draw, alpha, **facts) for alpha in options.alpha]
            progress("draws", draw + 1, options.resamples)
        times = speeds(encoder, train, test[0][: options.latency]) if options.latency else []
    if options.json:
        print(json.dumps([*map(asdict, rows), *map(asdict, times)], indent=1))
        return
    show(rows, times)


if __name__ == "__main__":
    main()
