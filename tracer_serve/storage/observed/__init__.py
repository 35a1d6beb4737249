"""Calls observed by the proxy: counts of all forms, and a bounded sample of those that may be tasks."""

from tracer_serve.storage.observed.store import ObservedCalls

__all__ = ["ObservedCalls"]
