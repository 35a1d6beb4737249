"""Calls something at intervals, in a thread of its own: how a process follows what others write, and its parent."""

import os
import signal
import threading
import time
from collections.abc import Callable

from tracer_serve.infra.log_context import within

_LOOK_S = 1.0


class PeriodicTask:
    """Calls `refresh` once at the start, then every `every_s` seconds until it is stopped.

    Parameters
    ----------
    name : of the thread
    refresh : must not raise: nobody would hear of it
    every_s : seconds from the end of one call to the next

    Examples
    --------
    >>> seen = []
    >>> follower = Follower("example", lambda: seen.append(1), 60.0)
    >>> follower.start()
    >>> follower.stop(), len(seen)
    (True, 1)
    """

    def __init__(self, name: str, refresh: Callable[[], None], every_s: float) -> None:
        self._refresh, self._every_s = refresh, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=within(self._follow), name=name, daemon=True)

    def start(self) -> None:
        """Call once, here, and then go on in the thread."""
        self._refresh()
        self._thread.start()

    def stop(self) -> bool:
        """Wait for the call under way, and call no more; return whether it had been started."""
        self._stop.set()
        started = self._thread.is_alive()
        if started:
            self._thread.join()
        return started

    def _follow(self) -> None:
        while not self._stop.wait(self._every_s):
            self._refresh()


def follow_parent(parent: int) -> None:
    """From now on end this process by SIGTERM once its parent is gone, even if that was killed and could not tell."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="tracer-parent", daemon=True).start()
