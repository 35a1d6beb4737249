"""A cluster's workers fit what this process would have: the same numbers, whatever happens to a worker."""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from bench.scale import traces as synthetic
from tests.storage.traces.make import trace
from tests.support.tasks import Planted, banking, write_task
from tracer_serve.components.embedders._cache import CachedEmbedder
from tracer_serve.components.factory import load_plugins, make_embedder, make_embedders
from tracer_serve.components.registry import embedders
from tracer_serve.config.compute import ComputeSpec
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError, PluginError, SpecError
from tracer_serve.fit.comparison import compare
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.execution import computing, travelling
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.infra.parallel import cores, cpu_time, spread
from tracer_serve.lifecycle.certificates import certificate_of
from tracer_serve.lifecycle.refit import refit
from tracer_serve.protocols import Embedder
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.storage.versions.store import VersionStore
from tracer_serve.types import Text, Vectors

PLUGIN = """
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates.knn import Knn

@surrogates.register("mine")
class Mine(Knn):
    pass
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in every refit and in every worker: the last digits of numpy's products depend on the number of threads."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of a thread each."""
    distributed = pytest.importorskip("distributed", reason="pip install '.[dask]' in a checkout of tracer-serve")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local:
        yield local


def on(cluster: Any, task: Task) -> Task:
    """Return the task with its fits on the cluster."""
    compute = ComputeSpec(engine="dask", address=cluster.scheduler_address)
    return replace(task, spec=task.spec.model_copy(update={"compute": compute}))


def fit(task: Task, rows: Rows, embedder: Embedder, told: list[Any] | None = None) -> Fitted:
    with computing(task):
        return fit_policy(task, rows, embedder, lambda *step: (told if told is not None else []).append(step[:3]))


def same(one: Fitted, other: Fitted, texts: Sequence[Text]) -> None:
    """Check that two fits are the same but for the time they took."""
    timeless = [replace(fitted.certificate, stages=()) for fitted in (one, other)]
    assert timeless[0] == timeless[1]
    for found, expected in zip(one.candidates, other.candidates, strict=True):
        assert replace(found, seconds=0.0) == replace(expected, seconds=0.0)
    first, second = one.policy.score(texts), other.policy.score(texts)
    np.testing.assert_array_equal(first.score, second.score)
    np.testing.assert_array_equal(first.top, second.top)


@pytest.mark.parametrize("embedder", ["trainable", "frozen", "plugin", "two"])
def test_workers_fit_what_this_process_would_have(tmp_path: Path, cluster: Any, embedder: str) -> None:
    """Certificate, candidates, scores and progress are the local ones, with every kind of component."""
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    surrogates: list[Any] = ["mine"] if embedder == "plugin" else ["logreg", "knn"]
    plugins = ["mine.py"] if embedder == "plugin" else []
    if embedder == "two":
        surrogates = [{"type": "logreg", "embedder": {"type": "ngrams", "dim": 32}}, "knn"]
    task = write_task(tmp_path, plugins=plugins, surrogates=surrogates, acceptors=["logistic"])
    load_plugins(task)
    rows, made = Rows.of(*banking(240)), make_embedder(task)
    if embedder == "frozen":
        rows = Rows.of([f"{i % 4} {i % 7 / 10} {i}" for i in range(240)], [f"label{i % 4}" for i in range(240)])
        made = Planted()
    told: tuple[list[Any], list[Any]] = ([], [])
    before = cpu_time()
    local, spread_out = (fit(one, rows, made, t) for one, t in zip((task, on(cluster, task)), told, strict=True))
    same(local, spread_out, rows.texts[:50])
    here, there = ([step for step in steps if step[0] != "embedding"] for steps in told)  # workers embed at once
    assert here == there
    assert all(candidate.seconds > 0 for candidate in spread_out.candidates)
    assert cpu_time() > before


class Elsewhere(Planted):
    """Embeds in any process but this one."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def fit(self, texts: Sequence[object]) -> Self:
        del texts
        return self

    def embed(self, texts: Sequence[object]) -> Vectors:
        assert os.getpid() != self.home
        return super().embed(texts)


def test_workers_embed(tmp_path: Path, cluster: Any) -> None:
    """What the cache lacks is embedded by workers, and is what this process would have embedded."""
    texts = [f"{i % 4} 0.{i}" for i in range(20)]
    with computing(on(cluster, write_task(tmp_path))):
        found = CachedEmbedder(Elsewhere(), tmp_path / "cache").embed(texts)
    np.testing.assert_array_equal(found, Planted().embed(texts))


def test_an_endpoint_is_asked_from_here(tmp_path: Path, cluster: Any) -> None:
    """An embedder that asks an endpoint stays where its connection and its key are."""

    class Remote(Planted):
        remote = True
        connection = threading.Lock()

        def fit(self, texts: Sequence[object]) -> Self:
            del texts
            return self

        def embed(self, texts: Sequence[object]) -> Vectors:
            with self.connection:
                return super().embed(texts)

    assert embedders.get("http").remote  # type: ignore[attr-defined]
    with computing(on(cluster, write_task(tmp_path))):
        assert len(CachedEmbedder(Remote(), tmp_path / "cache").embed(["1 0.5"])) == 1


def test_folds_abreast_are_those_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores fit the folds side by side, and every number is the one that a single core comes to."""
    task = write_task(tmp_path, surrogates=["mlp"], fit={"folds": 4})
    rows, ticks = Rows.of(*banking(200)), list[int]()

    def scores(cores: str) -> list[Vectors]:
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        found = compare(task, rows, make_embedders(task, tmp_path / cores), lambda _, done, *__: ticks.append(done))
        return [np.asarray(part.score) for part in found.parts]

    for one, two in zip(scores("1"), scores("2"), strict=True):
        np.testing.assert_array_equal(one, two)
    assert ticks == [0, 1, 2, 3, 4] * 2


def test_what_a_thread_raises_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of one job reaches the caller, and jobs that have not begun never do."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    begun: list[int] = []
    with pytest.raises(ZeroDivisionError):
        list(spread(_divide, begun, [1, 0, *range(1, 100)], abreast=True))
    assert len(begun) < 50


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("max 100000", 64), ("junk", 64)])
def test_a_container_s_quota_bounds_the_cores(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 64 cores of which a container may use one and a half, two are kept busy; OMP_NUM_THREADS has the last word."""
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores(tmp_path / "cpu.max") == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cores(tmp_path / "cpu.max") == 5


def _divide(begun: list[int], by: int) -> float:
    begun.append(by)
    threading.Event().wait(0.02)
    return 1 / by


def _fall_once(folder: Path, job: int) -> int:
    """Kill the worker where there is no note yet that one fell by this job."""
    note = folder / str(job)
    if job < 0 and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job * job


def test_a_lost_worker_is_survived(tmp_path: Path, cluster: Any) -> None:
    """A worker that is killed in the middle costs time only: every job's result comes, each once."""
    with computing(on(cluster, write_task(tmp_path))):
        assert sorted(spread(_fall_once, tmp_path, [-1, *range(8)])) == sorted([1, *(n * n for n in range(8))])


@pytest.mark.slow
def test_all_workers_lost_is_survived(tmp_path: Path, cluster: Any) -> None:
    """Where what all jobs share went down with the last worker it is sent anew, to those that come after."""
    with computing(on(cluster, write_task(tmp_path))):
        assert sorted(spread(_fall_once, tmp_path, [-1, -2, *range(4)])) == sorted([1, 4, *(n * n for n in range(4))])


def _fail(shared: str, job: int) -> int:
    raise ValueError(f"{shared} {job}")


def test_an_error_of_a_job_is_raised(tmp_path: Path, cluster: Any) -> None:
    """What a job raises on a worker is raised here, and the cluster is fit for more."""
    with computing(on(cluster, write_task(tmp_path))):
        with pytest.raises(ValueError, match="bad 1"):
            list(spread(_fail, "bad", [1]))
        assert next(spread(pow, 2, [5])) == 32


def test_no_key_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers are sent holds neither the teacher's nor the server's keys."""
    monkeypatch.setenv("SECRET", "sk-not-to-be-sent-anywhere")
    teacher = {"type": "openai", "model": "m", "api_key": "${SECRET}"}
    task = write_task(tmp_path, teacher=teacher, labels=["a", "b"], server={"api_keys": ["${SECRET}"]})
    assert b"sk-not-to-be" in pickle.dumps(task)
    assert b"sk-not-to-be" not in pickle.dumps(travelling(task))


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that does not answer, and Dask that is not installed, are errors that say what to do."""
    with pytest.raises(SpecError, match=r"compute: engine: dask needs the scheduler's address"):
        write_task(tmp_path, compute={"engine": "dask"})
    task = write_task(tmp_path, compute={"engine": "dask", "address": "tcp://127.0.0.1:9"})
    module = pytest.importorskip("tracer_serve.fit.dask_cluster")
    with pytest.raises(FitError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        module.DaskCluster("tcp://127.0.0.1:9", connect_s=0.2)
    monkeypatch.delitem(sys.modules, "tracer_serve.fit.dask_cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PluginError, match=r"pip install '.\[dask\]' in a checkout of tracer-serve"), computing(task):
        pytest.fail("it computed")


def _refit(folder: Path, rows: int, change: Callable[[Task], Task], after_fold: Callable[[], object]) -> VersionStore:
    """Refit a task of synthetic traces in a folder of its own; call something once the first fold has ended."""
    task = change(write_task(folder, name="synthetic", labels=None, traces={}, surrogates=["logreg"], rows=4))
    texts, labels, _ = synthetic(rows)
    store = store_of(task)
    for start in range(0, rows, 10_000):
        pairs = zip(texts[start : start + 10_000], labels[start : start + 10_000].tolist(), strict=True)
        store.traces.add([trace("synthetic", text, teacher_label=label, version=None) for text, label in pairs])
    store.close()

    def progress(stage: str, done: int, _total: int, _left_s: float | None = None, /) -> None:
        if stage.startswith("fold 2 ") and done == 1:
            after_fold()

    refit(task, progress=progress)
    return open_versions(task)


@pytest.mark.slow
def test_a_refit_of_100_000_traces_is_the_local_one(tmp_path: Path, cluster: Any) -> None:
    """Model files are the same bytes and the certificate the same, though a worker is killed after the first fold."""
    rows = 100_000
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    fallen = cluster.workers[0].process.pid
    here = _refit(folders[0], rows, lambda task: task, lambda: None)
    there = _refit(folders[1], rows, lambda task: on(cluster, task), lambda: os.kill(fallen, signal.SIGKILL))
    files = [one.verify(1).files for one in (here, there)]
    # these hold how long something took, or where
    timed = {"candidates.json", "certificate.json", "model/policy.json", "report.json", "report.html", "nearest.npy"}
    assert {name for name in files[0] if files[0][name] != files[1][name]} <= {*timed, "spec.yaml"}
    certificates = [certificate_of(one, 1) for one in (here, there)]
    assert replace(certificates[0], stages=()) == replace(certificates[1], stages=())
    assert here.manifest(1).traces == there.manifest(1).traces == rows
