"""Gather concurrent texts into batches without delay: a batch is what queued while the last one ran."""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from tracer_serve.errors import BadInputError, OverloadedError
from tracer_serve.infra.caller import CALLER, within_share
from tracer_serve.infra.log_context import within
from tracer_serve.policy.policy import Policy
from tracer_serve.serving.batch_queue import BatchQueue
from tracer_serve.types import Text, Verdict, length_of

_log = logging.getLogger(__name__)

_ALONE_S, _SHARED_S = 0.05, 0.01  # how long a batch should take: a request waits for at most about one batch
_ALONE_LEAST, _SHARED_LEAST = 8, 2  # rows of a batch, however long one takes
_MOST_REQUESTS = 32  # of one caller: a larger batch costs as much per text
_MOST_ROWS = 256
_INLINE_S = 0.004  # shorter work is not worth two switches of thread
_INLINE_CHARS = 65_536
_WEIGHT = 2  # one caller's texts are two thirds of the capacity at most


MaybeVerdict: TypeAlias = Verdict | BadInputError | None
"""What is known of one text: None where the policy failed on it, an error where no policy could do better."""


@dataclass(slots=True)
class BatchTimes:
    """Time spent in the batches that a request took part in, seconds, and the texts of all callers in them."""

    embed_s: float = 0.0
    predict_s: float = 0.0
    texts: int = 0

    def per_text_ms(self) -> dict[str, float]:
        """Return milliseconds per text, by stage: a text of a full batch costs less than one alone."""
        each = 1e3 / max(1, self.texts)
        return {"embed": round(self.embed_s * each, 3), "predict": round(self.predict_s * each, 3)}


@dataclass(slots=True, eq=False)
class _Job:
    policy: Policy
    texts: Sequence[Text]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[None]"
    caller: str
    verdicts: list[MaybeVerdict]
    times: BatchTimes = field(default_factory=BatchTimes)
    taken: int = 0
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.texts)

    @property
    def untaken(self) -> int:
        """How many texts are in no batch yet."""
        return len(self.texts) - self.taken

    def take(self, count: int) -> "list[_Row]":
        """Return the next texts for a batch."""
        start, self.taken = self.taken, self.taken + count
        return [(self, i) for i in range(start, self.taken)]


_Row = tuple[_Job, int]


class Batcher:
    """Run policies on batches of the texts of concurrent requests.

    Every caller gets an equal share of each batch (`batch_queue`), and batches are small while several callers send
    texts, so that a single text does not wait for others' lists. Batches run in a thread. Very short work runs in the
    event loop instead, as one batch of all texts that arrived in the same iteration.

    Parameters
    ----------
    capacity : maximum number of texts waiting, two thirds of them of one caller; further requests are rejected at once
    """

    def __init__(self, capacity: int = 20_000) -> None:
        self._capacity, self._queued = capacity, 0
        self._queued_by: dict[str, int] = {}
        self._waiting = BatchQueue[_Job](time.monotonic)
        self._arrived: list[_Job] = []
        self._wake = threading.Condition()
        self._closed = self._running = False
        self._row_s = _ALONE_S
        self._thread = threading.Thread(target=within(self._run), name="tracer-batcher", daemon=True)
        self._thread.start()

    async def judge(self, policy: Policy, texts: Sequence[Text]) -> tuple[list[MaybeVerdict], BatchTimes]:
        """Return a policy's verdicts on texts in their order; a text it fails on gets None, never a guess.

        Raises
        ------
        OverloadedError
            If too many texts are waiting.
        """
        loop, caller = asyncio.get_running_loop(), CALLER.get()
        job = _Job(policy, texts, loop, loop.create_future(), caller, [None] * len(texts))
        if not texts or self._closed:
            return job.verdicts, job.times
        own = self._queued_by.get(caller, 0)
        if own and not within_share(own, self._queued, self._capacity, _WEIGHT, len(texts)):
            raise OverloadedError(f"{own:,} texts of this caller are waiting already; retry later")
        if not self._arrived:
            loop.call_soon(self._start)
        self._arrived.append(job)
        self._count(caller, len(texts))
        try:
            await job.future
        finally:
            self._count(caller, -len(texts))
        return job.verdicts, job.times

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _count(self, caller: str, texts: int) -> None:
        self._queued += texts
        self._queued_by[caller] = self._queued_by.get(caller, 0) + texts
        if not self._queued_by[caller]:
            del self._queued_by[caller]

    def _start(self) -> None:
        """Run the jobs of this iteration of the event loop: here if they are short, else in the thread."""
        jobs, self._arrived = self._arrived, []
        rows = [(job, i) for job in jobs for i in range(len(job.texts))]
        short = len(rows) * self._row_s < _INLINE_S and sum(length_of(job.texts[i]) for job, i in rows) < _INLINE_CHARS
        if short and not self._running and not self._waiting:
            self._work(rows)
            _resolve(jobs)
            return
        with self._wake:
            for job in jobs:
                self._waiting.add(job)
            self._wake.notify()

    def _run(self) -> None:
        while rows := self._take():
            self._work(rows)
            self._running = False  # before the results: the next requests may be short enough for the event loop
            _hand_back(rows)

    def _work(self, rows: list[_Row]) -> None:
        started = time.perf_counter()
        for same in _by_policy(rows):
            _judge(same)
        # one batch is a noisy estimate, and a small one overestimates the cost per row
        weight = min(0.5, len(rows) / _ALONE_LEAST)
        self._row_s += weight * ((time.perf_counter() - started) / len(rows) - self._row_s)

    def _take(self) -> list[_Row]:
        """Wait for texts, then take a fair share of each caller's; none once closed and empty."""
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            self._running = True
            # a text of each that waits: one after the other they would take longer
            if self._waiting.shared:
                target, least = _SHARED_S, max(_SHARED_LEAST, self._waiting.callers)
            else:
                target, least = _ALONE_S, max(_ALONE_LEAST, min(self._waiting.requests, _MOST_REQUESTS))
            room = min(max(int(target / max(self._row_s, 1e-6)), least), _MOST_ROWS)
            return [row for job, count in self._waiting.take(room) for row in job.take(count)]


def _by_policy(rows: list[_Row]) -> list[list[_Row]]:
    """Split a batch by policy (two during a swap), the rows of each by length, so that short is padded."""
    if len(rows) == 1:
        return [rows]
    ordered = sorted(rows, key=lambda row: (id(row[0].policy), length_of(row[0].texts[row[1]])))
    return [list(same) for _, same in groupby(ordered, key=lambda row: id(row[0].policy))]


def _judge(rows: list[_Row]) -> None:
    """Run one policy on its rows and store the verdicts; if it fails, find the rows on which it fails."""
    policy = rows[0][0].policy
    texts = [job.texts[i] for job, i in rows]
    try:
        started = time.perf_counter()
        found = policy.score(texts)
        verdicts = found.rows()
        took = time.perf_counter() - started
    except Exception as error:  # noqa: BLE001  an embedder may raise anything; the text is deferred, and the failure logged
        if len(rows) > 1:
            for row in rows:
                _judge([row])
        elif isinstance(error, BadInputError):
            rows[0][0].verdicts[rows[0][1]] = error
        else:
            _log.exception("the policy failed on a text; it is deferred")
        return
    for (job, i), verdict in zip(rows, verdicts, strict=True):
        job.verdicts[i] = verdict
    for job in {id(job): job for job, _ in rows}.values():
        job.times.embed_s += found.embed_s
        job.times.predict_s += took - found.embed_s
        job.times.texts += len(rows)


def _hand_back(rows: list[_Row]) -> None:
    """Wake the requests whose last text was in this batch, with one call per event loop."""
    finished: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job, _ in rows:
        job.left -= 1
        if not job.left:
            finished.setdefault(job.loop, []).append(job)
    for loop, jobs in finished.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_result(None)
