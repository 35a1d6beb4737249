"""The worker that ``serve`` starts early: it imports and checks in parallel with the supervisor's start."""

import gc
import importlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tracer_serve.config.load import Task
from tracer_serve.errors import SpecError, TracerServeError
from tracer_serve.server.process.handshake import SupervisorLink
from tracer_serve.server.process.worker import serve, tasks_named

if TYPE_CHECKING:
    from tracer_serve.cli.commands._prepare import Prepared


def main() -> int:
    """Check the tasks, report to the supervisor, and serve unless a version must be fitted first."""
    gc.disable()
    line = SupervisorLink(int(sys.argv[1]))
    importlib.import_module("tracer_serve.cli.commands._prepare")
    importlib.import_module("tracer_serve.server.app")  # imported while the supervisor reads the YAML
    if not line.may_prepare():
        return 0
    try:
        tasks = tasks_named()
        found = _prepared(tasks)
    except TracerServeError as error:
        line.fail(error)
        return error.exit_code
    # checking plugins imports scikit-learn, which a serving worker should not hold
    serves = not any(one.unfitted for one in found) and not any(task.spec.plugins for task in tasks)
    line.tell({"serves": serves, "tasks": [asdict(one) for one in found]})
    if serves:
        serve(tasks, line)
    return 0


def _prepared(tasks: Sequence[Task]) -> list["Prepared"]:
    """Check all tasks; raise one error that lists the problems of all, each with its file."""
    from tracer_serve.cli.commands._prepare import prepare  # noqa: PLC0415

    if len(tasks) == 1:
        return [prepare(tasks[0])]
    found, problems = [], []
    for task in tasks:
        try:
            found.append(prepare(task))
        except TracerServeError as error:
            problem = str(error)
            problems.append(problem if problem.startswith(str(task.file)) else f"{task.file}: {problem}")
    if problems:
        raise SpecError("\n".join(problems) + f"\nnone of the {len(tasks)} tasks was started")
    return found


if __name__ == "__main__":
    sys.exit(main())
