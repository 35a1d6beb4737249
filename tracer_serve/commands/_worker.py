"""The worker that ``serve`` starts ahead: it prepares its tasks first, as it imports all that this takes."""

import gc
import importlib
import sys
from dataclasses import asdict

from tracer_serve.errors import TracerServeError
from tracer_serve.service.ahead import Line
from tracer_serve.service.worker import serve, tasks_named


def main() -> int:
    """Prepare, tell what was found, and serve unless something has to be done before."""
    gc.disable()
    line = Line(int(sys.argv[1]))
    from tracer_serve.commands._prepare import prepare  # noqa: PLC0415

    importlib.import_module("tracer_serve.service.app")  # what answers, while the supervisor reads the YAML
    if not line.may_prepare():
        return 0
    try:
        tasks = tasks_named()
        found = [prepare(task) for task in tasks]
    except TracerServeError as error:
        line.fail(error)
        return error.exit_code
    # whoever has checked plugins has fitted, and holds scikit-learn; one that answers should not
    serves = not any(one.unfitted for one in found) and not any(task.spec.plugins for task in tasks)
    line.tell({"serves": serves, "tasks": [asdict(one) for one in found]})
    if serves:
        serve(tasks, line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
