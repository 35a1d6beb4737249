"""The worker that ``serve`` starts ahead: it prepares its tasks first, as it imports all that this takes."""

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
    """Prepare, tell what was found, and serve unless something has to be done before."""
    gc.disable()
    line = SupervisorLink(int(sys.argv[1]))
    importlib.import_module("tracer_serve.cli.commands._prepare")
    importlib.import_module("tracer_serve.server.app")  # what answers, while the supervisor reads the YAML
    if not line.may_prepare():
        return 0
    try:
        tasks = tasks_named()
        found = _prepared(tasks)
    except TracerServeError as error:
        line.fail(error)
        return error.exit_code
    # whoever has checked plugins has fitted, and holds scikit-learn; one that answers should not
    serves = not any(one.unfitted for one in found) and not any(task.spec.plugins for task in tasks)
    line.tell({"serves": serves, "tasks": [asdict(one) for one in found]})
    if serves:
        serve(tasks, line)
    return 0


def _prepared(tasks: Sequence[Task]) -> list["Prepared"]:
    """Prepare all tasks, or tell what is wrong with any of them together, each by the name of its file."""
    from tracer_serve.cli.commands._prepare import prepare  # noqa: PLC0415

    if len(tasks) == 1:
        return [prepare(tasks[0])]
    found, problems = [], []
    for task in tasks:
        try:
            found.append(prepare(task))
        except TracerServeError as error:
            told = str(error)
            problems.append(told if told.startswith(str(task.file)) else f"{task.file}: {told}")
    if problems:
        raise SpecError("\n".join(problems) + f"\nnone of the {len(tasks)} tasks was started")
    return found


if __name__ == "__main__":
    sys.exit(main())
