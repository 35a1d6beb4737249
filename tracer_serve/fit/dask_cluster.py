"""Work on the processes of a Dask cluster; imported only where `compute.engine` asks for it.

The shared part of the work is sent to every worker once. Dask repeats the jobs of a lost worker on others; if the last
worker with the shared part is lost, it is sent again.
"""

import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import distributed

from tracer_serve.components.plugins import load_plugin
from tracer_serve.errors import FitError

_WORKERS_S, _LOOK_S = 120.0, 1.0
_SENDINGS = 5  # of the shared part, until one gives up


class Plugins(distributed.WorkerPlugin):  # type: ignore[misc]  # distributed has no usable types
    """Imports a task's plugin files on each worker, those that join later included.

    Parameters
    ----------
    files : paths that are the same on the workers
    """

    name = "tracer-serve"

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    def setup(self, worker: Any) -> None:
        """Run as a worker starts."""
        del worker
        for file in self.files:
            load_plugin(file)


class DaskCluster:
    """Spreads jobs over the workers.

    Parameters
    ----------
    address : of the scheduler, such as ``tcp://scheduler:8786``
    plugins : files that register a task's own components
    connect_s : seconds to wait for the scheduler

    Raises
    ------
    FitError
        If the scheduler or its workers cannot be reached.
    """

    def __init__(self, address: str, plugins: Sequence[Path] = (), *, connect_s: float = 20.0) -> None:
        self.cpu_s = 0.0
        self._address = address
        self._sent: tuple[object, Any] | None = None
        try:
            self._client = distributed.Client(address, timeout=connect_s, set_as_default=False)
        except OSError as error:
            raise FitError(
                f"compute.address: no Dask scheduler answers at {address} ({error}). Start one: dask scheduler"
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_S)
            self._client.register_plugin(Plugins(plugins))
        except TimeoutError as error:
            self.close()
            raise FitError(self._no_workers) from error

    @property
    def _no_workers(self) -> str:
        return (
            f"compute.address: the scheduler at {self._address} has had no worker for {_WORKERS_S:.0f} s."
            f" Start some, with tracer-serve installed: dask worker {self._address} --nthreads 1"
        )

    @property
    def workers(self) -> int:
        """Return how many threads the cluster's workers have together, at least one."""
        return max(1, int(sum(self._client.nthreads().values())))

    def close(self) -> None:
        """Disconnect; the cluster keeps running."""
        self._sent = None
        self._client.close()

    def __call__(self, work: Callable[[Any, Any], Any], shared: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield ``work(shared, job)`` for each job, in the order in which they end; raise what a job raises."""
        waiting = dict(enumerate(jobs))
        for _ in range(_SENDINGS):
            for number, result in self._round(work, shared, waiting):
                del waiting[number]
                yield result
            if not waiting:
                return
            self._sent = None
        raise FitError(f"the workers of {self._address} were lost {_SENDINGS} times. Look at their memory and logs")

    def _round(
        self, work: Callable[[Any, Any], Any], shared: Any, jobs: Mapping[int, Any]
    ) -> Iterator[tuple[int, Any]]:
        """Submit jobs and yield what ends; ends early where the shared part is lost."""
        sent, ended = self._send(shared), queue.SimpleQueue[Any]()
        futures = {self._client.submit(_timed, work, sent, job, pure=False): n for n, job in jobs.items()}
        try:
            for future in futures:
                future.add_done_callback(ended.put)
            for _ in range(len(futures)):
                future = self._next(ended)
                if future.status in ("lost", "cancelled"):
                    return
                result, cpu = _result(future)
                self.cpu_s += cpu
                yield futures[future], result
        finally:
            self._client.cancel(list(futures), force=True)  # the caller has stopped reading

    def _send(self, shared: Any) -> Any:
        """Send to all workers, once as long as the same object is asked for."""
        if self._sent is None or self._sent[0] is not shared:
            self._await_workers()
            self._sent = shared, self._client.scatter(shared, broadcast=True, hash=False)
        return self._sent[1]

    def _next(self, ended: "queue.SimpleQueue[Any]") -> Any:
        while True:
            try:
                return ended.get(timeout=_LOOK_S)
            except queue.Empty:
                self._await_workers()

    def _await_workers(self) -> None:
        end = time.monotonic() + _WORKERS_S
        while not self._client.scheduler_info()["workers"]:
            if time.monotonic() > end:
                raise FitError(self._no_workers)
            time.sleep(_LOOK_S)


def _timed(work: Callable[[Any, Any], Any], shared: Any, job: Any) -> tuple[Any, float]:
    """Run on a worker; return CPU seconds as well."""
    began = time.process_time()
    return work(shared, job), time.process_time() - began


def _result(future: Any) -> tuple[Any, float]:
    try:
        found: tuple[Any, float] = future.result()
    except distributed.KilledWorker as error:
        raise FitError(
            f"one job ended several workers ({error}); they have too little memory for these traces, perhaps"
        ) from error
    return found
