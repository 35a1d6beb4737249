"""Digests of manifests, kept in the trace store, so that a changed version is detected even if its checksums match.

A manifest lists the sha256 of every file, and is stored beside them: with write access, both can be replaced. The
trace store may be elsewhere (Postgres), with other credentials.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from tracer_serve.errors import ArtifactError
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.manifest import Manifest

DIGESTS = "versions.manifests"
"""Key of the value: digest of the manifest by version number."""

OpenStore = Callable[[], AbstractContextManager[TraceStore]]


class ManifestDigests:
    """The digests of a task's manifests.

    Parameters
    ----------
    open_store : opens the trace store, or returns the one that is open
    """

    def __init__(self, open_store: OpenStore) -> None:
        self._open_store = open_store

    def record(self, manifest: Manifest) -> None:
        """Store the digest of a version that is being written."""
        with self._open_store() as store:
            store.values.update(DIGESTS, lambda known: (known or {}) | {str(manifest.version): manifest.digest()})

    def drop(self, numbers: Sequence[int]) -> None:
        """Remove the digests of deleted versions."""
        gone = set(map(str, numbers))
        with self._open_store() as store:
            if gone:
                store.values.update(DIGESTS, lambda known: {n: d for n, d in (known or {}).items() if n not in gone})

    def check(self, manifest: Manifest) -> None:
        """Compare a manifest with its digest. A store that holds no digest of any version checks none.

        Raises
        ------
        ArtifactError
            The manifest was changed after the version was written, or was not written with this trace store.
        """
        with self._open_store() as store:
            known = store.values.get(DIGESTS)
        if not known:
            return
        remedy = "Choose another with `tracer-serve rollback TASK.yaml`, or refit."
        found = known.get(str(manifest.version))
        if found is None:
            raise ArtifactError(
                f"version {manifest.version} is unknown to the trace store: no refit with this store wrote it. {remedy}"
            )
        if found != manifest.digest():
            raise ArtifactError(
                f"the manifest of version {manifest.version} was changed after the version was written, so its files"
                f" cannot be trusted. {remedy}"
            )
