"""Versions that several machines share: files in an object store, `current` in the trace store."""

from tracer_serve.shared.current import CURRENT, Current
from tracer_serve.shared.objects import Objects
from tracer_serve.shared.opening import open_versions
from tracer_serve.shared.versions import SharedVersions

__all__ = ["CURRENT", "Current", "Objects", "SharedVersions", "open_versions"]
