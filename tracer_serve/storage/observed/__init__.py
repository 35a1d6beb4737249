"""What a proxy keeps of the calls that it forwards: counts of all, and a bounded sample of what may be tasks."""

from tracer_serve.storage.observed.store import ObservedCalls

__all__ = ["ObservedCalls"]
