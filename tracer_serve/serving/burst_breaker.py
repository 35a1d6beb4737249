"""Burst breaker: audit repeats of one template, and defer a template on which the teacher disagreed.

A certificate promises agreement for messages whose repeats are counted once. A burst of one message, with different
names and numbers, would multiply a single mistake. So the 2nd, 10th, 50th, ... handled repeat within a window is sent
to the teacher as well, at any audit rate, and one disagreement defers the template until the next version. These audits
are not a random sample, so they neither calibrate nor feed the monitor.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from tracer_serve.serving.template_miner import TemplateMiner
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Text

BURSTS = "bursts.deferred"
"""Key in the store: a version, and the templates that all processes defer while it serves."""

_FIRST, _FACTOR = 2, 5  # repeats that are audited: 2, 10, 50, ...
_WINDOW_S = 86_400.0
_MOST_DEFERRED = 1_000
_NAME, _HEX = 32, "0123456789abcdef"  # length and characters of the name of an input that is no text


@dataclass(slots=True)
class _Count:
    seen: int = 1
    due: int = _FIRST


class RepeatCounter:
    """Count repeats of frequent keys in bounded memory, and decide which are due for an audit.

    Keys seen once are kept in the order of arrival, the others by frequency, as in a space-saving sketch (A. Metwally,
    D. Agrawal and A. El Abbadi, ICDT 2005). A key that was forgotten starts at 1, so a count is never too high.

    Parameters
    ----------
    most : keys seen once, and keys seen more often, that are kept

    Examples
    --------
    >>> counter = RepeatCounter()
    >>> [n for n in range(1, 100) if counter.add("a")]
    [2, 10, 50]
    """

    def __init__(self, most: int = 4_096) -> None:
        self._most = most
        self._once: dict[str, None] = {}
        self._counts: dict[str, _Count] = {}

    def add(self, key: str) -> bool:
        """Count a key; return whether this repeat is due."""
        count = self._counts.get(key)
        if count is None:
            if key not in self._once:
                self._once[key] = None
                if len(self._once) > self._most:
                    del self._once[next(iter(self._once))]
                return False
            del self._once[key]
            if len(self._counts) >= self._most:
                self._forget_rare()
            count = self._counts[key] = _Count()
        count.seen += 1
        if count.seen < count.due:
            return False
        count.due *= _FACTOR
        return True

    def _forget_rare(self) -> None:
        """Forget the less frequent half."""
        ranked = sorted(self._counts, key=lambda key: self._counts[key].seen, reverse=True)
        self._counts = {key: self._counts[key] for key in ranked[: len(ranked) // 2]}


class BurstBreaker:
    """The templates of one task's handled texts in this process. Thread-safe.

    Parameters
    ----------
    templates : whether inputs are texts, which have templates; of ready vectors only equal ones are repeats
    window_s : seconds after which counts start again
    clock : seconds, monotonic
    """

    def __init__(
        self, *, templates: bool = True, window_s: float = _WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._window_s, self._clock, self._began = window_s, clock, clock()
        self._guard = threading.Lock()
        self._template_of = TemplateMiner().template_of if templates else _itself
        self._repeats = RepeatCounter()
        self._version: int | None = None
        self._deferred: set[str] = set()
        self._found: list[str] = []

    @property
    def deferred(self) -> int:
        """How many templates are deferred."""
        return len(self._deferred)

    def defers(self, text: Text) -> bool:
        """Return whether the teacher disagreed about a text of this template."""
        if not self._deferred:
            return False
        with self._guard:
            return self._template_of(text) in self._deferred

    def count(self, text: Text) -> bool:
        """Count a handled text; return whether it is a repeat that should be audited."""
        with self._guard:
            if self._clock() > self._began + self._window_s:
                self._repeats, self._began = RepeatCounter(), self._clock()
            return self._repeats.add(self._template_of(text))

    def disagree(self, version: int | None, text: Text) -> None:
        """Defer a text's template: an audit of a repeat, handled by `version`, disagreed."""
        with self._guard:
            if version == self._version:
                template = self._template_of(text)
                self._deferred.add(template)
                self._found.append(template)

    def exchange(self, store: TraceStore, version: int) -> None:
        """Share disagreements with other processes; a new version starts without any."""
        with self._guard:
            if version != self._version:
                self._version, self._deferred, self._found, self._repeats = version, set(), [], RepeatCounter()
            found = [*self._found]
        stored = store.values.update(BURSTS, _adding(version, found)) if found else store.values.get(BURSTS)
        with self._guard:
            self._found = self._found[len(found) :]
            if stored is not None and stored["version"] == version:
                self._deferred |= {self._template_of(template) for template in stored["templates"]}


def _itself(text: Text) -> str:
    """Return a short name of a long input; a name's name is the name."""
    joined = text if isinstance(text, str) else " ".join(text)
    if len(joined) == _NAME and not joined.strip(_HEX):
        return joined
    return blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=_NAME // 2).hexdigest()


def _adding(version: int, found: list[str]) -> Callable[[dict[str, Any] | None], dict[str, Any]]:
    def add(stored: dict[str, Any] | None) -> dict[str, Any]:
        if stored is not None and stored["version"] > version:
            return stored
        known = stored["templates"] if stored is not None and stored["version"] == version else []
        return {"version": version, "templates": [*dict.fromkeys([*known, *found])][-_MOST_DEFERRED:]}

    return add
