"""Concurrent texts to batches, without ever waiting: a batch is what queued while the last one ran."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from tracer_serve.errors import BadInputError, OverloadedError
from tracer_serve.infra.log_context import within
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Text, Verdict, length_of

_log = logging.getLogger(__name__)

_TARGET_S = 0.05  # a lone request waits for at most about one batch: batches are sized to take this long
_LEAST_ROWS, _MOST_ROWS = 8, 256
_AHEAD = 4  # short requests go ahead of a list where they would fill so small a part of a batch
_INLINE_S = 0.004  # what takes less is not worth two changes of thread
_INLINE_CHARS = 65_536


@dataclass(slots=True, eq=False)
class Judged:
    """What the policy said of the texts of one request.

    Parameters
    ----------
    verdicts : one per text, in order; None where the policy failed on it, an error where no policy could do better
    embed_s, predict_s : time spent in the batches that this request took part in, seconds
    """

    verdicts: list[Verdict | BadInputError | None]
    embed_s: float = 0.0
    predict_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Job:
    policy: Policy
    texts: Sequence[Text]
    judged: Judged
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Judged]"
    taken: int = 0
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.texts)

    @property
    def untaken(self) -> int:
        return len(self.texts) - self.taken

    def take(self, most: int) -> "list[_Row]":
        start, self.taken = self.taken, min(self.taken + most, len(self.texts))
        return [(self, i) for i in range(start, self.taken)]


_Row = tuple[_Job, int]


class Batcher:
    """Runs policies on batches made of whatever requests are there.

    Every request gets a share of each batch, so that a lone text never waits for a list of ten thousand; a few of
    them go even before the list's next share. The work is done in a thread of its own, except what is expected to take
    less than the change of threads: that is done where it is, as one batch of what came in the same turn of the event
    loop.

    Parameters
    ----------
    capacity : most texts waiting; beyond it a request is refused at once instead of waiting for ever
    """

    def __init__(self, capacity: int = 20_000) -> None:
        self._capacity, self._queued = capacity, 0
        self._waiting: deque[_Job] = deque()
        self._arrived: list[_Job] = []
        self._wake = threading.Condition()
        self._closed = self._running = self._went_ahead = False
        self._row_s = _TARGET_S
        self._thread = threading.Thread(target=within(self._run), name="tracer-batcher", daemon=True)
        self._thread.start()

    async def judge(self, policy: Policy, texts: Sequence[Text]) -> Judged:
        """Ask a policy about texts; a text it fails on gets None, never a guess.

        Raises
        ------
        OverloadedError
            Where too many texts are waiting already.
        """
        loop = asyncio.get_running_loop()
        job = _Job(policy, texts, Judged([None] * len(texts)), loop, loop.create_future())
        if not texts or self._closed:
            return job.judged
        if self._queued and self._queued + len(texts) > self._capacity:
            raise OverloadedError(f"{self._queued:,} texts are waiting already; ask again later")
        if not self._arrived:
            loop.call_soon(self._start)
        self._arrived.append(job)
        self._queued += len(texts)
        try:
            return await job.future
        finally:
            self._queued -= len(texts)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _start(self) -> None:
        """Begin what came in this turn of the event loop: here if it is little, else in the thread."""
        jobs, self._arrived = self._arrived, []
        rows = [(job, i) for job in jobs for i in range(len(job.texts))]
        little = len(rows) * self._row_s < _INLINE_S and sum(length_of(job.texts[i]) for job, i in rows) < _INLINE_CHARS
        if little and not self._running and not self._waiting:
            self._work(rows)
            _resolve(jobs)
            return
        with self._wake:
            self._waiting.extend(jobs)
            self._wake.notify()

    def _run(self) -> None:
        while rows := self._take():
            self._work(rows)
            self._running = False  # before the answers go: what comes upon them may be little again
            _hand_back(rows)

    def _work(self, rows: list[_Row]) -> None:
        started = time.perf_counter()
        for same in _by_policy(rows):
            _judge(same)
        # halfway at most, because one batch says little; of a lone row, which shares its cost with none, even less
        weight = min(0.5, len(rows) / _LEAST_ROWS)
        self._row_s += weight * ((time.perf_counter() - started) / len(rows) - self._row_s)

    def _take(self) -> list[_Row]:
        """Wait for work, then take a fair share of each request's texts; nothing once closed and empty."""
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            self._running = True
            room = min(max(int(_TARGET_S / max(self._row_s, 1e-6)), _LEAST_ROWS), _MOST_ROWS)
            return self._ahead(room // _AHEAD) or self._shares(room)

    def _ahead(self, most: int) -> list[_Row]:
        """Take what is left of the short requests where it is little beside a list: the list's next part waits for it.

        Not twice in turn, so that the list goes on.
        """
        short = [job for job in self._waiting if job.untaken <= most]
        little = sum(job.untaken for job in short) <= most
        self._went_ahead = bool(short) and little and len(short) < len(self._waiting) and not self._went_ahead
        if not self._went_ahead:
            return []
        self._waiting = deque(job for job in self._waiting if job.untaken > most)
        return [row for job in short for row in job.take(most)]

    def _shares(self, room: int) -> list[_Row]:
        """Take of each request as much, and more where others have less."""
        share = max(1, room // max(1, len(self._waiting)))
        rows: list[_Row] = []
        while self._waiting and len(rows) < room:
            job = self._waiting.popleft()
            rows += job.take(min(share, room - len(rows)))
            if job.untaken:
                self._waiting.append(job)
        return rows


def _by_policy(rows: list[_Row]) -> list[list[_Row]]:
    """Split a batch by policy (two during a swap), the rows of each by length, so that little is padded."""
    if len(rows) == 1:
        return [rows]
    ordered = sorted(rows, key=lambda row: (id(row[0].policy), length_of(row[0].texts[row[1]])))
    return [list(same) for _, same in groupby(ordered, key=lambda row: id(row[0].policy))]


def _judge(rows: list[_Row]) -> None:
    """Run one policy on its rows and note the verdicts; where it fails, find the rows it fails on."""
    policy = rows[0][0].policy
    texts = [job.texts[i] for job, i in rows]
    try:
        started = time.perf_counter()
        seen = policy.score(texts)
        verdicts = policy.verdicts(seen)
        took = time.perf_counter() - started
    except Exception as error:  # noqa: BLE001  an embedder may raise anything; the text is deferred, the failure told
        if len(rows) > 1:
            for row in rows:
                _judge([row])
        elif isinstance(error, BadInputError):
            rows[0][0].judged.verdicts[rows[0][1]] = error
        else:
            _log.exception("the policy failed on a text; it is deferred")
        return
    for (job, i), verdict in zip(rows, verdicts, strict=True):
        job.judged.verdicts[i] = verdict
    for job in {id(job): job for job, _ in rows}.values():
        job.judged.embed_s += seen.embed_s
        job.judged.predict_s += took - seen.embed_s


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
            job.future.set_result(job.judged)
