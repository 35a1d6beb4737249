"""The BentoML service of a bento, and the image that it is built into."""

import os
from pathlib import Path
from typing import Any

from tracer_serve.server.bento.carried import STATE
from tracer_serve.server.process.handshake import TASK

BASE = "python:3.11.14-slim-bookworm"
"""The base image, of the Dockerfile too."""

_USER = 1034  # of BentoML's images


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
    from bentoml.images import Image  # noqa: PLC0415  # these imports read the settings

    from tracer_serve.server.bento.mounted_service import make_service, tasks_or_exit  # noqa: PLC0415

    image = Image(base_image=BASE, distro="", lock_python_packages=False, build_include_paths=["wheels"])
    image.run(f"install --directory --owner={_USER} --group={_USER} {STATE}")
    image.python_packages(*(folder / "requirements.txt").read_text(encoding="utf-8").split())
    return make_service(tasks_or_exit(os.environ[TASK]), carried=folder / "carried", image=image)
