"""Cost of a refit here, on a Dask cluster, and while a worker is killed; and whether the versions differ.

``python -m bench.cluster --rows 100000`` takes the texts of Banking77 and CLINC150, and as many variants as are
missing: with a word left out, or two swapped. Each refit is a process of its own on a copy of the same store; the
cluster is two workers on this machine, which share its cores, so it shows equality, not speed.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import yaml
from rich.table import Table

from bench.apart import apart, peak_mb
from bench.data import read
from tracer_serve.cli.console import out
from tracer_serve.config.compute import ComputeSpec
from tracer_serve.config.load import Task, load_task
from tracer_serve.infra.parallel import cpu_time
from tracer_serve.lifecycle.refit import refit
from tracer_serve.storage.traces import new_id
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.types import Trace


@dataclass(frozen=True, slots=True)
class Setting:
    """Where one refit runs.

    Parameters
    ----------
    folder : of its task and state
    address : the scheduler's, None: in this process
    kill : a worker's process, killed after the first fold; None: none
    """

    folder: str
    address: str | None = None
    kill: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One refit.

    Parameters
    ----------
    cpu_s, wall_s, peak_mb : of the process that refits; the workers' CPU seconds for it are `workers_cpu_s`
    workers_peak_mb : of each worker that lives at the end
    coverage : certified
    files : of the version
    differs : names of those whose bytes are not the local refit's; for JSON with the keys that differ
    """

    system: str
    rows: int
    cpu_s: float
    workers_cpu_s: float
    wall_s: float
    peak_mb: float
    coverage: float
    files: int
    workers_peak_mb: tuple[float, ...] = ()
    differs: tuple[str, ...] = ()


def texts_of(rows: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return texts and labels: all real ones, then variants of them, in a random order."""
    rng = np.random.default_rng(seed)
    real = [
        (str(text), f"{name}.{label}")
        for name in ("banking77", "clinc150")
        for part in ("train", "test")
        for text, label in zip(*read(name, part), strict=True)
    ]
    more = [(variant(real[i][0], rng), real[i][1]) for i in rng.integers(0, len(real), max(0, rows - len(real)))]
    found = [*real, *more]
    return [found[i] for i in rng.permutation(len(found))[:rows]]


def variant(text: str, rng: np.random.Generator) -> str:
    """Return a text with a word left out, or with two neighbours swapped."""
    words = text.split()
    if len(words) < 4:  # too short to lose a word
        return f"{text} please"
    place = int(rng.integers(0, len(words) - 1))
    if rng.random() < 0.5:
        return " ".join(words[:place] + words[place + 1 :])
    return " ".join([*words[:place], words[place + 1], words[place], *words[place + 2 :]])


def fill(folder: Path, rows: int, spec: dict[str, Any]) -> None:
    """Write a task with a number of traces in its store."""
    known = folder / "teacher.jsonl"
    known.write_text(json.dumps({"input": "hello", "teacher": "greeting"}) + "\n", encoding="utf-8")
    written = {"name": "cluster", "teacher": {"type": "offline", "file": known.name}, "fit": {"folds": 4}}
    (folder / "task.yaml").write_text(yaml.safe_dump(written | spec), encoding="utf-8")
    store, now = store_of(task_of(folder)), datetime.now(UTC)
    facts: dict[str, Any] = {"task": "cluster", "label_source": "teacher", "decision": "deferred", "audit_rate": 1.0}
    pairs = texts_of(rows)
    for start in range(0, len(pairs), 10_000):
        page = pairs[start : start + 10_000]
        store.traces.add([Trace(id=new_id(), ts=now, input=text, teacher_label=y, **facts) for text, y in page])
    store.close()


def task_of(folder: Path, address: str | None = None) -> Task:
    """Return the task of a folder, with its state there; fitted on the cluster at an address, if there is one."""
    task = load_task(folder / "task.yaml")
    compute = task.spec.compute if address is None else ComputeSpec(engine="dask", address=address)
    return replace(task, spec=task.spec.model_copy(update={"state": folder / "state", "compute": compute}))


def measure(rows: int, setting: Setting) -> Row:
    """Refit once, in this process."""
    task = task_of(Path(setting.folder), setting.address)

    def progress(stage: str, done: int, _total: int, _left_s: float | None = None, /) -> None:
        if setting.kill is not None and stage.startswith("fold 2 ") and done == 1:
            os.kill(setting.kill, signal.SIGKILL)

    began = cpu_time()
    found = refit(task, progress=progress)
    manifest = open_versions(task).manifest(found.version)
    return Row(
        system="local" if setting.address is None else "dask" if setting.kill is None else "dask, a worker killed",
        rows=rows,
        cpu_s=cpu_time() - began,
        workers_cpu_s=0.0,
        wall_s=found.seconds,
        peak_mb=peak_mb(),
        coverage=found.certificate.coverage,
        files=len(manifest.files),
    )


def version_of(folder: Path) -> Path:
    """Return the folder of the version that a refit wrote."""
    return open_versions(task_of(folder)).folder(1)


def differences(one: Path, other: Path) -> tuple[str, ...]:
    """Return the files of two versions whose bytes differ; for JSON with the keys under which they do."""
    names = {str(path.relative_to(root)) for root in (one, other) for path in root.rglob("*") if path.is_file()}
    return tuple(found for name in sorted(names) if (found := _difference(name, one / name, other / name)))


def _difference(name: str, one: Path, other: Path) -> str:
    if not (one.exists() and other.exists()):
        return f"{name} (in one only)"
    if one.read_bytes() == other.read_bytes():
        return ""
    if one.suffix != ".json":
        return name
    keys = {*_keys(json.loads(one.read_text()), json.loads(other.read_text()))}
    return f"{name} ({', '.join(sorted(keys))})"


def _keys(one: Any, other: Any, key: str = "") -> list[str]:
    """Return the innermost keys whose values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [found for k in one.keys() | other.keys() for found in _keys(one.get(k), other.get(k), k)]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [found for a, b in zip(one, other, strict=True) for found in _keys(a, b, key)]
    return [] if one == other else [key]


def _worker_peak() -> tuple[float, float]:
    return cpu_time(), peak_mb()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--spec", default="{}", help='YAML laid over the spec, as "{surrogates: [logreg]}"')
    parser.add_argument("--json", action="store_true", help="JSON rows")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="tracer-bench-"))
    try:
        found = _compare(folder, options.rows, yaml.safe_load(options.spec))
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([asdict(row) for row in found]))
    else:
        show(found)


def _compare(folder: Path, rows: int, spec: dict[str, Any]) -> list[Row]:
    filled = folder / "filled"
    filled.mkdir()
    fill(filled, rows, spec)
    for name in ("local", "dask", "killed"):
        shutil.copytree(filled, folder / name)
    found = [apart(measure, rows, Setting(str(folder / "local")))]
    for name in ("dask", "killed"):
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
            distributed.Client(cluster) as client,
        ):
            kill = cluster.workers[0].process.pid if name == "killed" else None
            row = apart(measure, rows, Setting(str(folder / name), cluster.scheduler_address, kill))
            workers = list(client.run(_worker_peak).values())
        found.append(
            replace(
                row,
                workers_cpu_s=sum(cpu for cpu, _ in workers),
                workers_peak_mb=tuple(peak for _, peak in workers),
                differs=differences(version_of(folder / "local"), version_of(folder / name)),
            )
        )
    return found


def show(found: Sequence[Row]) -> None:
    """Print a table for people."""
    table = Table("", *(row.system for row in found), title=f"{found[0].rows:,} traces")
    table.add_row("CPU s", *(f"{row.cpu_s:.0f}" for row in found))
    table.add_row("CPU s of the workers that live", *(f"{row.workers_cpu_s:.0f}" for row in found))
    table.add_row("wall s", *(f"{row.wall_s:.0f}" for row in found))
    table.add_row("peak, MB", *(f"{row.peak_mb:,.0f}" for row in found))
    table.add_row("peak of each worker, MB", *(", ".join(f"{mb:,.0f}" for mb in row.workers_peak_mb) for row in found))
    table.add_row("coverage", *(f"{row.coverage:.4f}" for row in found))
    table.add_row("files, of them not the local ones'", *(f"{row.files}, {len(row.differs)}" for row in found))
    out.print(table)
    for row in found:
        for name in row.differs:
            print(f"{row.system}: {name}")


if __name__ == "__main__":
    main()
