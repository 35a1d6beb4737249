"""Identify lease holders, so that the lease of a dead local process can be taken over at once.

A process is identified by machine boot, PID namespace, PID and start time, so a reused PID, or one of another
container, is not mistaken for it. The lease of a holder on another machine has to expire.
"""

import os
import socket
from pathlib import Path

from tracer_serve.storage.traces import TraceStore, new_id

_PROC = Path("/proc")
_FIELDS = 5  # of a holder's name


def new_holder() -> str:
    """Return a holder name for one attempt of this process: ``host namespace pid start id``."""
    return f"{socket.gethostname()} {_here()} {os.getpid()} {_started(os.getpid())} {new_id()}"


def is_dead(holder: str) -> bool:
    """Return whether a holder is certainly dead; False also if that cannot be determined."""
    parts = holder.split(" ")
    if len(parts) != _FIELDS or parts[1] in ("", "?") or parts[1] != _here() or not parts[2].isdecimal():
        return False
    return _started(int(parts[2])) != parts[3]


def describe_holder(holder: str | None) -> str:
    """Return a holder as text for people; None means that the lease was just released.

    Examples
    --------
    >>> describe_holder("web-1 boot/pid:[4026531836] 4711 98765 01a205d9")
    'process 4711 on web-1'
    """
    parts = (holder or "a process that has just ended").split(" ")
    return f"process {parts[2]} on {parts[0]}" if len(parts) == _FIELDS else " ".join(parts)


def take_lease(store: TraceStore, name: str, holder: str, ttl_s: float) -> bool:
    """Acquire a lease that is free, has expired, or belongs to a dead process of this machine."""
    if store.leases.acquire(name, holder, ttl_s):
        return True
    # `live_holder` releases by the dead holder's name: if another process was faster, it releases nothing
    return live_holder(store, name) is None and store.leases.acquire(name, holder, ttl_s)


def live_holder(store: TraceStore, name: str) -> str | None:
    """Return the holder of a lease; a dead process's lease is released."""
    present = store.leases.holder(name)
    if present is not None and is_dead(present):
        store.leases.release(name, present)
        return None
    return present


def _here() -> str:
    """Return the scope of PIDs, this boot and this PID namespace; ``?`` if unknown."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return "?"


def _started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty for no process or a zombie."""
    try:
        state, *rest = (
            (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]  # proc(5): field 3 is the state, field 22 the start


LEASE = "refit"
"""The lease that every refit holds."""
