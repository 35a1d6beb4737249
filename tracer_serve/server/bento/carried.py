"""Install the version that a bento carries, if the state folder has none."""

from dataclasses import replace
from pathlib import Path

from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers
from tracer_serve.components.factory import load_plugins, make_embedders
from tracer_serve.config.load import Task
from tracer_serve.storage.versions.folders import VersionFolders
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.storage.versions.store import adopt

STATE = "/state"
"""State folder in a container: mount a volume there."""


def settle(task: Task, carried: Path) -> None:
    """Copy a bento's version and encoder exports into the state folder, unless it has versions of its own.

    A task of another name, set by ``TRACER_SERVE_TASK``, starts without a version.
    """
    versions = VersionFolders(carried / "version")
    (number,) = versions.numbers()
    if versions.manifest(number).task != task.spec.name:
        return
    if (carried / "onnx").is_dir():
        load_plugins(task)
        for place, embedder in enumerate(make_embedders(single(task))):
            if isinstance(embedder, SentenceTransformers):
                embedder.adopt(carried / "onnx" / str(place))
    adopt(open_versions(task), versions.folder(number))


def single(task: Task) -> Task:
    """Return the task with embedders for single texts, not wrapped for pairs."""
    return replace(task, spec=task.spec.model_copy(update={"input": "text"}))
