"""Version stores: fitted versions of a task in a folder or in an object store."""

from tracer_serve.storage.versions.digests import DIGESTS, ManifestDigests
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.object_store import Objects
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.storage.versions.pointer import CURRENT, Current
from tracer_serve.storage.versions.remote import ObjectStoreVersions
from tracer_serve.storage.versions.store import VersionStore

__all__ = [
    "CURRENT",
    "DIGESTS",
    "Current",
    "LocalVersions",
    "ManifestDigests",
    "ObjectStoreVersions",
    "Objects",
    "VersionStore",
    "open_versions",
]
