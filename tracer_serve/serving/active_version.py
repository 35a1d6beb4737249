"""The version that answers now: one reference, swapped when another one becomes current."""

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
    """A version in memory, verified.

    Parameters
    ----------
    teacher : fingerprint of the teacher whose labels it was fitted on
    labels : the surrogate's labels, in the order of its probabilities
    after : its calibration rows came after this trace id
    forms : fingerprints of the forms that its certificate covers
    decided : what it said of the texts asked about most recently; with another version it is gone
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
    """Follows the current version and keeps it in memory.

    Readers take `loaded` once per request: a swap replaces the reference, requests in flight keep theirs. A version
    that fails to load is logged and counted, and the one before it stays.

    Parameters
    ----------
    current : says which version should serve, None before the first; asked every `poll_s` seconds, so cheap
    load : reads and verifies a version; raises where it is corrupt or was certified with another embedder
    on_failure : called once per failed attempt
    poll_s : seconds between looks at `current`
    retry_s : seconds until a version that failed is tried again (a full memory may have been the cause)
    """

    def __init__(
        self,
        current: Callable[[], int | None],
        load: Callable[[int], ActiveVersion],
        on_failure: Callable[[], None] = lambda: None,
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
        """Load what is current, then follow it in a thread of its own."""
        self._follower.start()

    def stop(self) -> None:
        """Stop following; the loaded version stays usable."""
        self._follower.stop()

    def refresh(self) -> None:
        """Load the current version if it is not the one in memory."""
        number: int | None = None
        try:
            number = self._current()
            if number == (self.loaded and self.loaded.number):
                self.problem = self._failed = None
            elif number is not None and not self._failed_lately(number):
                self.loaded = self._load(number)
                self.problem = self._failed = None
                _log.info("version %d serves", number)
        except Exception as error:  # noqa: BLE001  a plugin's load may raise anything; the last good version stays
            self._failed = (number, time.monotonic())
            which = "the current version" if number is None else f"version {number}"
            problem = f"{which} does not load: {error}"
            if problem != self.problem:
                stays = f"version {self.loaded.number} stays" if self.loaded else "none serves"
                trace = not isinstance(error, TracerServeError)  # which says all there is to say
                _log.error("%s; %s", problem, stays, exc_info=trace)
                self._on_failure()
            self.problem = problem

    def _failed_lately(self, number: int) -> bool:
        return (
            self._failed is not None
            and self._failed[0] == number
            and time.monotonic() < self._failed[1] + self._retry_s
        )
