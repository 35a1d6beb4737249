"""Start a service: check the tasks, fit first versions, run the workers."""

import argparse
import json
import shlex
from contextlib import closing
from dataclasses import replace
from typing import Any

from tracer_serve.cli.console import facts, out, progress_bar
from tracer_serve.config.load import Task
from tracer_serve.errors import ArtifactError, BusyError, FitError, StoreError, TracerServeError
from tracer_serve.server.process.address import bind, require_keys
from tracer_serve.server.process.handshake import WorkerHandle
from tracer_serve.server.process.logs import configure_our_log, log_to_stdout
from tracer_serve.server.process.supervisor import Supervisor
from tracer_serve.server.process.task_set import load_tasks, require_one_address


def go(args: argparse.Namespace, worker: WorkerHandle) -> int:
    """Check all tasks, fit first versions where they are missing, and serve until SIGTERM or SIGINT.

    Returns
    -------
    0, or 1 if no worker could start
    """
    tasks = tuple(_moved(task, args.host, args.port) for task in load_tasks(args.task))
    require_one_address(tasks)
    for task in tasks:
        require_keys(task.spec.server, insecure=args.insecure, file=task.file)
    server = tasks[0].spec.server
    with bind(server) as listener:
        worker.prepare()
        report = worker.wait_report()
        if not report["serves"]:
            worker.end()
        for task, found in zip(tasks, report["tasks"], strict=True):
            begin(task, found)
        invite(report["tasks"][0]["example"], *tasks)
        log_to_stdout()
        configure_our_log()
        return Supervisor(listener, server.workers).run(worker if report["serves"] else None)


def _moved(task: Task, host: str | None, port: int | None) -> Task:
    """Return the task with another host or port."""
    server = task.spec.server
    moved = server.model_copy(update={"host": host or server.host, "port": port or server.port})
    return replace(task, spec=task.spec.model_copy(update={"server": moved}))


def begin(task: Task, found: dict[str, Any]) -> None:
    """Print the facts of a task, or fit version 1 if there are traces and no version.

    Parameters
    ----------
    found : a `Prepared`
    """
    if found["unfitted"]:
        _first(task)
    elif found["facts"]:
        facts(found["facts"])
    else:
        out.print(
            f"{task.spec.name}: no traces yet; every request goes to the teacher, and each answer becomes a trace"
        )


def _first(task: Task) -> None:
    """Fit version 1. If that is not possible yet, print why; the teacher answers until then."""
    from tracer_serve.cli.commands.fit import summary  # noqa: PLC0415  # both import scikit-learn, which takes two
    from tracer_serve.lifecycle.refit import refit  # noqa: PLC0415  # seconds and is not needed with a version

    try:
        with progress_bar() as progress:
            outcome = refit(task, "start", progress)
    except BusyError as error:
        _ask_for_first(task)
        _served_by_teacher(task, error)
    except (FitError, ArtifactError, StoreError) as error:  # a young task, or a full disk: neither is a mistake
        _served_by_teacher(task, error)
    else:
        summary(task, outcome)


def _served_by_teacher(task: Task, why: TracerServeError) -> None:
    """Print why there is no version yet, and that the teacher answers meanwhile."""
    until = "Until there is one, every request goes to the teacher, and each answer becomes a trace"
    out.print(f"{task.spec.name}: no version yet: {str(why).rstrip('.')}. {until}", markup=False)


def _ask_for_first(task: Task) -> None:
    """Ask any process to write version 1, in case the process that is writing it dies."""
    from tracer_serve.lifecycle.triggers import request_refit  # noqa: PLC0415  # numpy and SQLAlchemy, half a second at each start
    from tracer_serve.storage.versions.opening import store_of  # noqa: PLC0415

    with closing(store_of(task)) as store:
        request_refit(store, "start")


def invite(example: object, task: Task, *others: Task) -> None:
    """Print the URL and a curl command to try; with several tasks, `model` selects one."""
    server = task.spec.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104  # shown, not bound
    url = f"http://{host}:{server.port}"
    body = json.dumps(({"model": task.spec.name} if others else {}) | {"input": example})
    out.print(f"\nlistening on {url}  (ctrl-c stops)\ntry it:")
    key = " -H 'authorization: Bearer YOUR-KEY'" if server.api_keys else ""
    line = f"  curl -s {url}/v1/classify{key} -H 'content-type: application/json' -d {shlex.quote(body)}\n"
    out.print(line, markup=False)
