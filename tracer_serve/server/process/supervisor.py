"""Keep worker processes on one listening socket: start them, replace those that die, stop them in order."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from socket import socket

from tracer_serve.server.process.handshake import WorkerHandle

_log = logging.getLogger(__name__)
_STOP = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """A process manager for workers that share a listening socket.

    A worker that was ready and dies is replaced at once, by a spare process that has imported everything. A worker that
    dies while it starts is retried after a delay that doubles each time; if no worker has been ready yet, the service
    cannot start, and `run` returns 1.

    Parameters
    ----------
    listener : bound socket; connections wait in its backlog while a worker is replaced
    count : number of workers
    start : starts a worker process, which waits until it is given the socket
    delay_s, longest_delay_s : first and longest delay before a failed start is retried
    spare_s : delay before a spare is started, once all workers are ready: it would slow down their start
    patience_s : time that workers have to stop before they are killed
    """

    def __init__(
        self,
        listener: socket,
        count: int,
        start: Callable[[], WorkerHandle] = WorkerHandle,
        *,
        delay_s: float = 1.0,
        longest_delay_s: float = 30.0,
        spare_s: float = 10.0,
        patience_s: float = 60.0,
    ) -> None:
        self._listener, self._count, self._start = listener, count, start
        self._delay_s, self._longest_delay_s = delay_s, longest_delay_s
        self._spare_s, self._patience_s = spare_s, patience_s
        self._signals = SimpleQueue[int]()  # its `put` is reentrant, as a signal handler needs
        self._workers: dict[int, WorkerHandle] = {}
        self._spare: WorkerHandle | None = None
        self._failed_starts, self._was_ready = 0, False
        self._next_start = 0.0

    def run(self, first: WorkerHandle | None = None) -> int:
        """Run workers until SIGTERM or SIGINT, then let each finish its requests.

        Parameters
        ----------
        first : a worker that was started ahead

        Returns
        -------
        0, or 1 if no worker could start
        """
        with self._queueing_signals():
            self._signals.put(signal.SIGCHLD)  # a worker may have ended before its signal was handled
            if first is not None:
                self._adopt(first)
            code = self._supervise()
            self._stop()
        return code

    def _supervise(self) -> int:
        while True:
            until_next = self._next_start - time.monotonic()
            if self._next_signal(until_next if until_next > 0 else self._start_missing()) in _STOP:
                return 0
            if not all(self._may_replace(worker) for worker in self._reap()):
                return 1

    def _start_missing(self) -> float | None:
        """Start what is missing: workers, or else a spare; return seconds until the next start; None if all run."""
        if len(self._workers) == self._count and all(worker.was_ready() for worker in self._workers.values()):
            self._spare = self._spare or self._start()
            return None
        while len(self._workers) < self._count:
            self._adopt(self._spare or self._start())
            self._spare = None
        self._next_start = time.monotonic() + self._spare_s
        return self._spare_s

    def _may_replace(self, ended: WorkerHandle) -> bool:
        """Set when a worker is replaced; return False if the service has never been ready."""
        ready = ended.was_ready()
        self._was_ready |= ready or any(worker.was_ready() for worker in self._workers.values())
        self._failed_starts = 0 if ready else self._failed_starts + 1
        delay_s = 0.0 if ready else min(self._delay_s * 2 ** (self._failed_starts - 1), self._longest_delay_s)
        self._next_start = time.monotonic() + delay_s
        outcome = f"it is replaced in {delay_s:.0f} s" if self._was_ready else "the service cannot start"
        _log.warning("worker %d ended with exit code %s; %s", ended.process.pid, ended.process.returncode, outcome)
        return self._was_ready

    def _adopt(self, worker: WorkerHandle) -> None:
        self._workers[worker.process.pid] = worker
        worker.hand_over(self._listener.fileno())

    def _reap(self) -> list[WorkerHandle]:
        """Return the workers that have ended. Other children are orphans, adopted as a container's first process."""
        ended = []
        while self._workers and (found := os.waitpid(-1, os.WNOHANG))[0]:
            if (worker := self._workers.pop(found[0], None)) is not None:
                worker.process.returncode = os.waitstatus_to_exitcode(found[1])
                ended.append(worker)
            elif self._spare is not None and found[0] == self._spare.process.pid:
                self._spare, self._next_start = None, time.monotonic() + self._spare_s
        return ended

    def _stop(self) -> None:
        """Stop all workers; kill them when their time is over, or at a second signal."""
        if self._spare is not None:
            self._spare.end()
        self._send(signal.SIGTERM)
        until = time.monotonic() + self._patience_s
        while self._workers:
            number = self._next_signal(max(0.0, until - time.monotonic()))
            self._reap()
            if number != signal.SIGCHLD:
                self._send(signal.SIGKILL)
                until += self._patience_s

    def _send(self, number: int) -> None:
        for pid in self._workers:  # not reaped yet, so these are still theirs
            os.kill(pid, number)

    def _next_signal(self, timeout_s: float | None) -> int | None:
        try:
            return self._signals.get(timeout=timeout_s)
        except Empty:
            return None

    @contextmanager
    def _queueing_signals(self) -> Iterator[None]:
        before = {n: signal.signal(n, lambda number, _: self._signals.put(number)) for n in (*_STOP, signal.SIGCHLD)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
