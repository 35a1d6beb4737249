"""Versions that several machines share: files in an object store, `current` in the trace store."""

from tracer_serve.storage.versions.object_store import Objects
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.storage.versions.pointer import CURRENT, Current
from tracer_serve.storage.versions.remote import SharedVersions

__all__ = ["CURRENT", "Current", "Objects", "SharedVersions", "open_versions"]
