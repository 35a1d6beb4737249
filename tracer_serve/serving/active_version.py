"""Load the current version into memory, and swap it when another one becomes current."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tracer_serve.errors import TracerServeError
from tracer_serve.forms.known import NATIVE
from tracer_serve.infra.periodic import PeriodicTask
from tracer_serve.infra.resilience.ttl_cache import Cache
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Text, Verdict

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActiveVersion:
    """A verified version in memory.

    Parameters
    ----------
    teacher : fingerprint of the teacher whose labels it was fitted on
    labels : the surrogate's labels, in the order of its probabilities
    after : its calibration rows came after this trace id
    forms : fingerprints of the forms that its certificate covers
    decided : cache of its verdicts on recent texts
    """

    number: int
    policy: Policy
    teacher: str
    labels: tuple[str, ...]
    after: str = ""
    forms: frozenset[str] = frozenset({NATIVE})
    decided: Cache[Text, Verdict] = field(default_factory=lambda: Cache(0, math.inf), compare=False)

    @property
    def certified(self) -> CertifiedVersion:
        """The version as the gate sees it."""
        return CertifiedVersion(self.number, self.policy.certificate, self.teacher, self.after)


class VersionLoader:
    """Keep the current version in memory.

    A request reads `loaded` once: a swap replaces the reference, and requests in flight keep the old version. A version
    that fails to load is logged and counted, and the previous one stays.

    Parameters
    ----------
    current : returns the number of the current version, None before the first; called every `poll_s` seconds
    load : reads and verifies a version; raises if it is corrupt or was certified with another embedder
    on_failure : called with the version's number and the error whenever the problem is a new one
    poll_s : seconds between calls of `current`
    retry_s : seconds until a version that failed to load is tried again; it may have been out of memory
    """

    def __init__(
        self,
        current: Callable[[], int | None],
        load: Callable[[int], ActiveVersion],
        on_failure: Callable[[int | None, Exception], None] = lambda *_: None,
        *,
        poll_s: float = 0.1,
        retry_s: float = 30.0,
    ) -> None:
        self.loaded: ActiveVersion | None = None
        self.problem: str | None = None
        self._current, self._load, self._on_failure = current, load, on_failure
        self._retry_s = retry_s
        self._failed: tuple[int | None, float] | None = None
        self._follower = PeriodicTask("tracer-live", self.refresh, poll_s)

    def start(self) -> None:
        """Load the current version, then follow changes in a thread."""
        self._follower.start()

    def stop(self) -> None:
        """Stop following changes; the loaded version stays usable."""
        self._follower.stop()

    def refresh(self) -> None:
        """Load the current version if it is not the one in memory."""
        number: int | None = None
        try:
            number = self._current()
            if number == (self.loaded and self.loaded.number):
                self.problem = self._failed = None
            elif number is not None and not self._failed_recently(number):
                self.loaded = self._load(number)
                self.problem = self._failed = None
                _log.info("version %d serves", number)
        except Exception as error:  # noqa: BLE001  a plugin's load may raise anything; the last good version stays
            self._failed = (number, time.monotonic())
            which = "the current version" if number is None else f"version {number}"
            problem = f"{which} does not load: {error}"
            if problem != self.problem:
                stays = f"version {self.loaded.number} stays" if self.loaded else "none serves"
                trace = not isinstance(error, TracerServeError)  # its message is complete
                _log.error("%s; %s", problem, stays, exc_info=trace)
                self._on_failure(number, error)
            self.problem = problem

    def _failed_recently(self, number: int) -> bool:
        return (
            self._failed is not None
            and self._failed[0] == number
            and time.monotonic() < self._failed[1] + self._retry_s
        )
