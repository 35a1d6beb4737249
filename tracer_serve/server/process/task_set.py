"""The tasks that one process tree serves: several YAMLs, or a folder of them, which have to get along."""

from collections.abc import Sequence
from pathlib import Path

from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import SpecError

_SUFFIXES = (".yaml", ".yml")
_SHARED = ("host", "port", "workers")  # of `server`: one process tree listens once


def load_tasks(paths: Sequence[Path]) -> tuple[Task, ...]:
    """Read all tasks, or none: what is wrong with any of the files is told together.

    Parameters
    ----------
    paths : YAML files, and folders of which every ``*.yaml`` and ``*.yml`` is a task, in the order of their names

    Raises
    ------
    SpecError
        Where a file is wrong, a folder holds none, or two tasks have the same name, state folder or plugin's name.
    """
    files = [file for path in paths for file in _files(path)]
    tasks, problems = [], []
    for file in files:
        try:
            tasks.append(load_task(file))
        except SpecError as error:
            problems.append(str(error))
    if problems:
        none = f"\nnone of the {len(files)} tasks was started" if len(files) > 1 else ""
        raise SpecError("\n".join(problems) + none)
    for i, task in enumerate(tasks):
        for other in tasks[:i]:
            _require_apart(task, other)
    return tuple(tasks)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
    if not found:
        raise SpecError("there is no *.yaml in this folder; each is one task", file=path)
    return found


def _require_apart(task: Task, other: Task) -> None:
    if task.spec.name == other.spec.name:
        raise SpecError(
            f"{task.spec.name!r} is the name of the task of {other.file} too; the name is what callers choose by",
            file=task.file,
            path="name",
        )
    if task.state == other.state:
        raise SpecError(
            f"{task.state} is the folder of {other.file} too; each task needs its own", file=task.file, path="state"
        )
    theirs = {other.resolve(path).stem: other.resolve(path) for path in other.spec.plugins}
    for path in task.spec.plugins:
        mine = task.resolve(path)
        namesake = theirs.get(mine.stem, mine)
        if mine != namesake and mine.is_file() and namesake.is_file() and mine.read_bytes() != namesake.read_bytes():
            raise SpecError(
                f"{path} is another plugin than the {namesake} of {other.file}, and one process holds one by this"
                " name; rename one",
                file=task.file,
                path="plugins",
            )


def require_one_address(tasks: Sequence[Task]) -> None:
    """Check that all tasks want to be served at the same address, by as many workers.

    Raises
    ------
    SpecError
        Where two differ; names both.
    """
    first, *rest = tasks
    for task in rest:
        for field in _SHARED:
            ours, theirs = getattr(first.spec.server, field), getattr(task.spec.server, field)
            if ours != theirs:
                option = "" if field == "workers" else f", or say --{field}"
                raise SpecError(
                    f"{theirs}, where {first.file} has {ours}: tasks side by side share one address and its workers;"
                    f" make them the same{option}",
                    file=task.file,
                    path=f"server.{field}",
                )
