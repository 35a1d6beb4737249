"""Select the texts of the next batch: fair shares per caller, and short requests before long lists."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_AHEAD = 4  # short requests precede lists if they fill at most this fraction (1/4) of a batch
_RECENT_S = 1.0


class Job(Protocol):
    """Texts of one request, of which some are taken."""

    @property
    def caller(self) -> str: ...  # noqa: D102
    @property
    def untaken(self) -> int: ...  # noqa: D102


J = TypeVar("J", bound=Job)


class BatchQueue(Generic[J]):
    """Jobs that wait for a batch. Not thread-safe.

    Every caller gets an equal share of a batch, and within it each of the caller's jobs in turn. Short jobs go ahead of
    longer ones in every other batch at most, so that lists progress too.

    Parameters
    ----------
    clock : seconds, monotonic
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs: dict[str, deque[J]] = {}
        self._seen: dict[str, float] = {}
        self._went_ahead = False

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def shared(self) -> bool:
        """Whether more than one caller has sent texts within the last second."""
        now = self._clock()
        self._seen = {caller: at for caller, at in self._seen.items() if at > now - _RECENT_S}
        return len(self._seen) > 1

    @property
    def callers(self) -> int:
        """How many callers wait."""
        return len(self._jobs)

    @property
    def requests(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._jobs.values()))

    def add(self, job: J) -> None:
        """Queue a job."""
        self._jobs.setdefault(job.caller, deque()).append(job)
        self._seen[job.caller] = self._clock()

    def take(self, room: int) -> list[tuple[J, int]]:
        """Return the jobs of the next batch of `room` texts, each with how many of its texts to take."""
        return self._ahead(room // _AHEAD) or self._shares(room)

    def _ahead(self, most: int) -> list[tuple[J, int]]:
        """Take the short jobs alone, where there are longer ones that would otherwise fill the batch."""
        jobs = [job for queue in self._jobs.values() for job in queue]
        short = [job for job in jobs if job.untaken <= most]
        few = sum(job.untaken for job in short) <= most
        self._went_ahead = bool(short) and few and len(short) < len(jobs) and not self._went_ahead
        if not self._went_ahead:
            return []
        kept = {caller: deque(job for job in queue if job.untaken > most) for caller, queue in self._jobs.items()}
        self._jobs = {caller: queue for caller, queue in kept.items() if queue}
        return [(job, job.untaken) for job in short]

    def _shares(self, room: int) -> list[tuple[J, int]]:
        taken = Counter[int]()
        jobs: dict[int, J] = {}
        while room and self._jobs:
            share = max(1, room // len(self._jobs))
            for caller in [*self._jobs][:room]:
                room -= self._share(caller, min(share, room), taken, jobs)
        return [(jobs[key], count) for key, count in taken.items()]

    def _share(self, caller: str, share: int, taken: Counter[int], jobs: dict[int, J]) -> int:
        """Take up to `share` texts of a caller's jobs, and put the caller behind the others; return how many."""
        queue, left = self._jobs.pop(caller), share
        while queue and left:
            each = max(1, left // len(queue))
            job = queue.popleft()
            jobs[id(job)] = job
            rest = job.untaken - taken[id(job)]
            count = min(each, rest, left)
            taken[id(job)] += count
            left -= count
            if count < rest:
                queue.append(job)
        if queue:
            self._jobs[caller] = queue
        return share - left
