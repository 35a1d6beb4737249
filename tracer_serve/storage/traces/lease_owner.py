"""Who holds a lease: a process that can be told dead, so that a kill -9 does not block its successor for a minute.

A process is known by machine boot, PID namespace, PID and start time, so neither a PID that was given again nor one of
another container is mistaken for it. Of a holder elsewhere nothing can be told, and its lease has to run out.
"""

import os
import socket
from pathlib import Path

from tracer_serve.storage.traces import TraceStore, new_id

_PROC = Path("/proc")
_PARTS = 5  # of a name


def new_holder() -> str:
    """Return a name for one attempt of this process: ``host here pid start id``."""
    return f"{socket.gethostname()} {_here()} {os.getpid()} {_started(os.getpid())} {new_id()}"


def is_dead(holder: str) -> bool:
    """Return whether a holder certainly lives no more; False also where nothing can be told."""
    parts = holder.split(" ")
    if len(parts) != _PARTS or parts[1] in ("", "?") or parts[1] != _here() or not parts[2].isdecimal():
        return False
    return _started(int(parts[2])) != parts[3]


def in_words(holder: str | None) -> str:
    """Return a holder as people look for it; None, which has just let go, as nobody.

    Examples
    --------
    >>> in_words("web-1 boot/pid:[4026531836] 4711 98765 01a205d9")
    'process 4711 on web-1'
    """
    parts = (holder or "nobody by now").split(" ")
    return f"process {parts[2]} on {parts[0]}" if len(parts) == _PARTS else " ".join(parts)


def take_lease(store: TraceStore, name: str, holder: str, ttl_s: float) -> bool:
    """Take a lease that is free, has run out, or belongs to a dead process of this machine."""
    if store.leases.acquire(name, holder, ttl_s):
        return True
    # released in its own name: if somebody was faster, it is no longer that name's, and this does nothing
    return live_holder(store, name) is None and store.leases.acquire(name, holder, ttl_s)


def live_holder(store: TraceStore, name: str) -> str | None:
    """Return who holds a lease; one whose process is dead is freed."""
    present = store.leases.holder(name)
    if present is not None and is_dead(present):
        store.leases.release(name, present)
        return None
    return present


def _here() -> str:
    """Return what a PID means something in: this boot and this PID namespace; ``?`` where that cannot be told."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return "?"


def _started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty where there is none, or only its zombie."""
    try:
        state, *rest = (
            (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]  # proc(5): field 3 is the state, field 22 the start


LEASE = "refit"
"""The lease that every refit holds."""
