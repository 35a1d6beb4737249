"""Where the heavy parts of a refit run: on this machine's cores, or on a cluster's workers, with the same result."""

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
"""From this `cost` on, in units of logreg's fit, a surrogate trains alone, and has to be worth its time."""
_MOST_THREADS = 8  # each holds a fold's model and vectors

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Cluster(Protocol):
    """Workers on other machines.

    Parameters
    ----------
    cpu_s : CPU seconds that they have spent for this process
    """

    cpu_s: float

    def __call__(self, work: Callable[[Any, Any], Any], shared: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield ``work(shared, job)`` for each job, in the order in which they end."""


active_cluster: ContextVar[Cluster | None] = ContextVar("cluster", default=None)
"""The cluster that `spread` uses; None: this machine."""


def spread(work: Callable[[S, J], R], shared: S, jobs: Sequence[J], *, abreast: bool = False) -> Iterator[R]:
    """Yield ``work(shared, job)`` for each job, in any order; raises what a job raises.

    Parameters
    ----------
    work : a function of a module, without side effects: it may run twice
    shared : what all jobs need, such as the vectors; is sent to each worker once
    jobs : small
    abreast : whether one job leaves cores idle, so that several may share this machine's; see `here`

    Examples
    --------
    >>> sorted(spread(pow, 2, [1, 2, 3]))
    [2, 4, 8]
    """
    cluster = active_cluster.get()
    yield from here(work, shared, jobs, abreast=abreast) if cluster is None else cluster(work, shared, jobs)


def here(work: Callable[[S, J], R], shared: S, jobs: Sequence[J], *, abreast: bool = False) -> Iterator[R]:
    """Do as `spread` does, in this process whatever the task's `compute`.

    Jobs abreast run in a thread per core, each with its products on that one core: cut into pieces for several cores,
    small products take longer than whole. Whoever stops listening waits for the jobs that have begun, not for others.
    """
    threads = min(len(jobs), cores(), _MOST_THREADS) if abreast else 1
    if threads < 2:  # noqa: PLR2004  # nothing to share
        yield from (work(shared, job) for job in jobs)
        return
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  # comes with scikit-learn, which serving is without

    with threadpool_limits(1), ThreadPoolExecutor(threads, "tracer-fit") as pool:
        futures = [pool.submit(work, shared, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Return how many cores this process may keep busy: ``OMP_NUM_THREADS``, else all that it may run on.

    Those are what the scheduler lets it use, and no more than the quota of its container, which the scheduler's list
    does not show (control groups, version 2).
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # another system
        return free
    return free if quota == "max" else min(free, math.ceil(int(quota) / int(period)))


def cpu_time() -> float:
    """Return CPU seconds of this process and, within `computing`, of what the workers did for it."""
    cluster = active_cluster.get()
    return time.process_time() + (cluster.cpu_s if cluster is not None else 0.0)
