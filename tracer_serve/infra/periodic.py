"""Call a function periodically in a thread, and stop a process when its parent has died."""

import os
import signal
import threading
import time
from collections.abc import Callable

from tracer_serve.infra.log_context import within

_LOOK_S = 1.0


class PeriodicTask:
    """Call `refresh` once at the start, then every `every_s` seconds until stopped.

    Parameters
    ----------
    name : name of the thread
    refresh : must not raise, because an exception would end the thread silently
    every_s : seconds from the end of one call to the next

    Examples
    --------
    >>> seen = []
    >>> task = PeriodicTask("example", lambda: seen.append(1), 60.0)
    >>> task.start()
    >>> task.stop(), len(seen)
    (True, 1)
    """

    def __init__(self, name: str, refresh: Callable[[], None], every_s: float) -> None:
        self._refresh, self._every_s = refresh, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=within(self._repeat), name=name, daemon=True)

    def start(self) -> None:
        """Call once in this thread, then periodically in the background thread."""
        self._refresh()
        self._thread.start()

    def stop(self) -> bool:
        """Stop after the call in progress; return whether the thread was running."""
        self._stop.set()
        started = self._thread.is_alive()
        if started:
            self._thread.join()
        return started

    def _repeat(self) -> None:
        while not self._stop.wait(self._every_s):
            self._refresh()


def follow_parent(parent: int) -> None:
    """Send this process SIGTERM once its parent is gone, even if the parent was killed."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="tracer-parent", daemon=True).start()
