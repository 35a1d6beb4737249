"""Load the tasks that one server serves, and check that they do not conflict."""

from collections.abc import Sequence
from pathlib import Path

from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import SpecError

_SUFFIXES = (".yaml", ".yml")
_SHARED = ("host", "port", "workers")  # of `server`: all tasks share one address


def load_tasks(paths: Sequence[Path]) -> tuple[Task, ...]:
    """Load all tasks; the errors of all files are reported together.

    Parameters
    ----------
    paths : YAML files, and folders whose ``*.yaml`` and ``*.yml`` files are tasks, in alphabetical order

    Raises
    ------
    SpecError
        If a file is invalid, a folder has none, or two tasks share a name, a state folder or a plugin's name.
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
        raise SpecError("this folder has no *.yaml; each is one task", file=path)
    return found


def _require_apart(task: Task, other: Task) -> None:
    if task.spec.name == other.spec.name:
        raise SpecError(
            f"{task.spec.name!r} is also the name of the task in {other.file}; callers choose a task by its name",
            file=task.file,
            path="name",
        )
    if task.state == other.state:
        raise SpecError(
            f"{task.state} is also the state folder of {other.file}; each task needs its own",
            file=task.file,
            path="state",
        )
    theirs = {other.resolve(path).stem: other.resolve(path) for path in other.spec.plugins}
    for path in task.spec.plugins:
        mine = task.resolve(path)
        namesake = theirs.get(mine.stem, mine)
        if mine != namesake and mine.is_file() and namesake.is_file() and mine.read_bytes() != namesake.read_bytes():
            raise SpecError(
                f"{path} and {namesake} of {other.file} are different plugins with one file name, and a process can"
                " load only one of them; rename one",
                file=task.file,
                path="plugins",
            )


def require_one_address(tasks: Sequence[Task]) -> None:
    """Check that all tasks have the same address and number of workers.

    Raises
    ------
    SpecError
        If two tasks differ.
    """
    first, *rest = tasks
    for task in rest:
        for field in _SHARED:
            ours, theirs = getattr(first.spec.server, field), getattr(task.spec.server, field)
            if ours != theirs:
                option = "" if field == "workers" else f", or pass --{field}"
                raise SpecError(
                    f"{theirs}, but {first.file} has {ours}: all tasks of a server share its address and workers;"
                    f" set the same value{option}",
                    file=task.file,
                    path=f"server.{field}",
                )
