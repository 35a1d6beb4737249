"""Copy a task's YAML and the files that it names, keeping their relative paths."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from tracer_serve.components.factory import embedders_of, paths_of
from tracer_serve.config.load import Task, parse_yaml
from tracer_serve.errors import SpecError

_HEAD = """\
# Made by `tracer-serve build` from {name}, without `traces.import`: traces belong in the state folder or the shared
# store. `tracer-serve build --with-traces` packs them.
"""


def copy_task(task: Task, target: Path, *, with_traces: bool = False) -> Path:
    """Copy a task into a new folder and return the path of its YAML, relative to that folder.

    Parameters
    ----------
    with_traces : whether to copy the files under ``traces.import``

    Raises
    ------
    SpecError
        If a file is missing, or named by an absolute path, which another machine does not have.
    """
    listed = [*task.spec.plugins, *_of_components(task), *(task.spec.traces.import_ if with_traces else ())]
    files = {path: Path(os.path.normpath(task.base / path)) for path in listed}
    for path, file in files.items():
        if path.is_absolute():
            raise SpecError(
                f"{path} is absolute; a bento is served on other machines: name it relative to the YAML", file=task.file
            )
        if not file.exists():
            raise SpecError(f"{path} does not exist; paths are relative to the YAML", file=task.file)
    root = Path(os.path.commonpath([task.base, *(file.parent for file in files.values())]))
    for file in files.values():
        _copy(file, target / file.relative_to(root))
    place = task.base.relative_to(root) / task.file.name
    (target / place).parent.mkdir(parents=True, exist_ok=True)
    (target / place).write_text(task.source if with_traces else _without_traces(task), encoding="utf-8")
    return place


def _of_components(task: Task) -> Iterator[Path]:
    """Yield the paths among the components' parameters, except encoders, which are packed as ONNX exports."""
    exported = {path for component, path in embedders_of(task) if component.type == "sentence_transformers"}
    for path, component in paths_of(task):
        if path not in exported:
            yield component


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(file, target)


def _without_traces(task: Task) -> str:
    """Return the YAML with its ``${VARIABLES}``, without its imports."""
    if not task.spec.traces.import_:
        return task.source
    raw = parse_yaml(task.source)
    raw["traces"].pop("import", None)
    raw["traces"].pop("import_", None)
    return _HEAD.format(name=task.file.name) + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
