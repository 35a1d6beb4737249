"""A bento's service: the same one, with the version that came along put in place where the state folder has none."""

from dataclasses import replace
from pathlib import Path

from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers
from tracer_serve.components.factory import load_plugins, make_embedders
from tracer_serve.config.load import Task
from tracer_serve.storage.versions.folders import VersionFolders
from tracer_serve.storage.versions.opening import open_versions
from tracer_serve.storage.versions.store import adopt

STATE = "/state"
"""Where a container keeps what changes: mount a volume there."""


def settle(task: Task, carried: Path) -> None:
    """Put what a bento carries into the state, where nothing is there yet: what was learnt since then stays.

    A spec of another name, by ``TRACER_SERVE_TASK``, starts without a version.
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
    """Return the task with its embedders as they are for single texts, not wrapped for pairs."""
    return replace(task, spec=task.spec.model_copy(update={"input": "text"}))
