"""Objects below one URL of S3, Google Cloud Storage, Azure or any other store that fsspec supports."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.http_endpoint import tls_problem

_PACKAGES = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a role of the machine)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or a service account of the machine)",
}
_MAKE = {"s3": "aws s3 mb s3://{bucket}", "gs": "gcloud storage buckets create gs://{bucket}"}


class Objects:
    """The objects below a URL. Thread-safe; do not use it on both sides of a fork.

    The driver reads credentials and endpoints: the variables ``AWS_*`` and ``GOOGLE_*``, roles of the machine.

    Parameters
    ----------
    url : such as ``s3://bucket/folder``

    Raises
    ------
    ArtifactError
        If the URL's protocol is unknown, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = url.partition("://")[0]
        try:
            fsspec = importlib.import_module("fsspec.core")
            # a cached listing would hide another machine's new version
            self._fs, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            extra = _PACKAGES.get(self._protocol)
            install = f"'.[{extra}]' in a checkout of tracer-serve" if extra else "the package that fsspec names"
            raise ArtifactError(f"{url}: its driver is missing ({error}). Try: pip install {install}") from error
        except ValueError as error:
            raise ArtifactError(
                f"versions.url: {url}: {error}; it looks like s3://bucket/folder, gs://bucket/folder or a plain folder"
            ) from error

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None if there is none."""
        with self._explained():
            try:
                found: bytes = self._fs.cat_file(self._at(name))
            except FileNotFoundError as error:
                if _means_bucket(error):
                    raise
                return None
            return found

    def fetch(self, name: str, to: Path) -> bool:
        """Write an object's content into a file; False if there is none."""
        with self._explained():
            try:
                self._fs.get_file(self._at(name), str(to))
            except FileNotFoundError as error:
                if _means_bucket(error):
                    raise
                return False
            return True

    def upload(self, file: Path, name: str) -> None:
        """Write a file's content; an object store shows it whole or not at all."""
        with self._explained():
            self._fs.put_file(str(file), self._at(name))

    def write(self, name: str, content: bytes) -> None:
        """Write an object, replacing any earlier one."""
        with self._explained():
            self._fs.pipe_file(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a new object by a conditional put; False if it exists."""
        with self._explained():
            try:
                self._fs.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
            return True

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder, sorted, relative to it."""
        where = self._at(folder)
        with self._explained():
            try:
                found = self._fs.find(where)
            except FileNotFoundError as error:
                if _means_bucket(error):
                    raise
                return []
        skip = len(where.strip("/")) + 1
        return sorted(path.strip("/")[skip:] for path in found)

    def age_s(self, name: str) -> float:
        """Return how many seconds ago an object was written; 0 if unknown."""
        with self._explained():
            try:
                written: datetime = self._fs.modified(self._at(name))
            except (FileNotFoundError, NotImplementedError):
                return 0.0
        return (datetime.now(UTC) - (written if written.tzinfo else written.replace(tzinfo=UTC))).total_seconds()

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing ones are ignored."""
        with self._explained():
            for name in names:
                try:
                    self._fs.rm_file(self._at(name))
                except FileNotFoundError as error:
                    if _means_bucket(error):
                        raise

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every driver has its own errors; the cause is kept and reported
            raise ArtifactError(f"{self.url}: {self._advice(error)} ({_said(error)})") from error

    def _advice(self, error: Exception) -> str:
        kind = "gs" if self._protocol in ("gs", "gcs") else "s3"
        bucket = self._root.strip("/").partition("/")[0]
        if "Credentials" in type(error).__name__:
            return f"there are no credentials. Set {_CREDENTIALS[kind]}"
        if problem := tls_problem(error, "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
            return f"the store cannot be reached: {problem}"
        if isinstance(error, PermissionError) or "AccessDenied" in str(error):
            return "access is refused. The role needs to read, write, list and delete below this URL"
        if isinstance(error, FileNotFoundError):
            return f"there is no such bucket. Create it: {_MAKE[kind].format(bucket=bucket)}"
        return "the store cannot be reached or failed. Check the network, and AWS_ENDPOINT_URL where it is not Amazon's"


def _means_bucket(error: Any) -> bool:
    return "bucket" in str(error).lower() and "exist" in str(error).lower()


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
