"""A bento's service: the same one, with the version that came along put in place where the state folder has none."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracer_serve.components import load_plugins, make_embedders
from tracer_serve.embedders.sentence_transformers import SentenceTransformers
from tracer_serve.load import Task
from tracer_serve.service.ahead import CARRIED, TASK
from tracer_serve.stock import versions_of
from tracer_serve.versions import Versions

STATE = "/state"
"""Where a container keeps what changes: mount a volume there."""
BASE = "python:3.11.14-slim-bookworm"
_USER = 1034  # BentoML's, in the images it builds


def bento_service(folder: Path, task: str) -> Any:
    """Return the service of a bento.

    Parameters
    ----------
    folder : the bento's source folder
    task : its YAML, relative to that; ``TRACER_SERVE_TASK`` names another
    """
    settings = {
        TASK: str(folder / task),
        "TRACER_SERVE_STATE": str(Path.home() / ".tracer"),  # BentoML's working folder is inside the bento
        "BENTOML_DO_NOT_TRACK": "True",
        "OPENBLAS_NUM_THREADS": "1",
    }
    os.environ.update({name: value for name, value in settings.items() if not os.environ.get(name)})
    os.environ[CARRIED] = str(folder / "carried")
    from bentoml.images import Image  # noqa: PLC0415

    from tracer_serve.service.entry import svc  # noqa: PLC0415  # it reads the settings when it is imported

    image = Image(base_image=BASE, distro="", lock_python_packages=False, build_include_paths=["wheels"])
    image.run(f"install --directory --owner={_USER} --group={_USER} {STATE}")
    svc.image = image.python_packages(*(folder / "requirements.txt").read_text(encoding="utf-8").split())
    return svc


def settle(task: Task, carried: Path) -> None:
    """Put what a bento carries into the state, where nothing is there yet: what was learnt since then stays.

    A spec of another name, by ``TRACER_SERVE_TASK``, starts without a version.
    """
    versions = Versions(carried / "version")
    (number,) = versions.numbers()
    if versions.manifest(number).task != task.spec.name:
        return
    if (carried / "onnx").is_dir():
        load_plugins(task)
        for place, embedder in enumerate(make_embedders(single(task))):
            if isinstance(embedder, SentenceTransformers):
                embedder.adopt(carried / "onnx" / str(place))
    versions_of(task).adopt(versions.folder(number))


def single(task: Task) -> Task:
    """Return the task with its embedders as they are for single texts, not wrapped for pairs."""
    return replace(task, spec=task.spec.model_copy(update={"input": "text"}))
