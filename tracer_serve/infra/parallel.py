"""Run the heavy parts of a refit on this machine's cores or on a cluster's workers, with the same result."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, TypeVar

S = TypeVar("S")
J = TypeVar("J")
R = TypeVar("R")

HEAVY = 20.0
"""From this `cost` on, in units of a logreg fit, a surrogate trains alone, and only if `fit.heavy_floor` allows."""
_MOST_THREADS = 8  # each holds a fold's model and vectors


class Cluster(Protocol):
    """Workers on other machines.

    Parameters
    ----------
    cpu_s : CPU seconds that the workers have spent for this process
    """

    cpu_s: float

    @property
    def workers(self) -> int:
        """Return how many jobs run at the same time."""

    def __call__(self, work: Callable[[Any, Any], Any], shared: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield ``work(shared, job)`` for each job, in order of completion."""


active_cluster: ContextVar[Cluster | None] = ContextVar("cluster", default=None)
"""The cluster that `spread` uses; None: this machine."""


def spread(work: Callable[[S, J], R], shared: S, jobs: Sequence[J], *, abreast: bool = False) -> Iterator[R]:
    """Yield ``work(shared, job)`` for each job, in any order; raises what a job raises.

    Parameters
    ----------
    work : a module-level function without side effects, because it may run twice
    shared : what all jobs need, such as the vectors; sent to each worker once
    jobs : the small part that differs between jobs
    abreast : whether several jobs may run at the same time on this machine; see `here`

    Examples
    --------
    >>> sorted(spread(pow, 2, [1, 2, 3]))
    [2, 4, 8]
    """
    cluster = active_cluster.get()
    yield from here(work, shared, jobs, abreast=abreast) if cluster is None else cluster(work, shared, jobs)


def here(work: Callable[[S, J], R], shared: S, jobs: Sequence[J], *, abreast: bool = False) -> Iterator[R]:
    """Do as `spread` does, but always in this process.

    With `abreast`, jobs run in one thread per core with one BLAS thread each, because splitting small matrix products
    over cores is slower. A consumer that stops early waits only for the jobs that have started.
    """
    threads = min(len(jobs), _threads(abreast=abreast))
    if threads < 2:  # noqa: PLR2004  # one thread
        yield from (work(shared, job) for job in jobs)
        return
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  # comes with scikit-learn, which serving does not import

    with threadpool_limits(1), ThreadPoolExecutor(threads, "tracer-fit") as pool:
        futures = [pool.submit(work, shared, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _threads(*, abreast: bool) -> int:
    return min(cores(), _MOST_THREADS) if abreast else 1


def at_once(*, abreast: bool) -> int:
    """Return how many jobs `spread` runs at the same time."""
    cluster = active_cluster.get()
    return _threads(abreast=abreast) if cluster is None else cluster.workers


def cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use: ``OMP_NUM_THREADS``, else all that it may run on.

    That is the scheduler's list, limited by the quota of the container (control groups, version 2).

    Parameters
    ----------
    quota_file : with the container's quota and period
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads):
        return int(threads)
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # another system
        return free
    return free if quota == "max" else min(free, math.ceil(int(quota) / int(period)))


def cpu_time() -> float:
    """Return the CPU seconds of this process plus, within `computing`, those of its workers."""
    cluster = active_cluster.get()
    return time.process_time() + (cluster.cpu_s if cluster is not None else 0.0)
