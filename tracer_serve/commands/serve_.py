"""``tracer-serve serve``: the main job."""

import argparse
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

from tracer_serve.commands._finding import finding
from tracer_serve.commands.check_ import check
from tracer_serve.components import teacher_fingerprint
from tracer_serve.console import facts, out, progress_bar
from tracer_serve.errors import BusyError
from tracer_serve.load import Task
from tracer_serve.service.run import require_free_port, require_keys, serve
from tracer_serve.service.tasks import load_tasks, require_one_address
from tracer_serve.standing import closing_of
from tracer_serve.stock import import_traces, store_of, versions_of
from tracer_serve.validity import Demands, certificate_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "task",
        type=Path,
        nargs="+",
        help="YAML file of the task; several, or a folder of them, are served side by side",
    )
    host = os.environ.get("TRACER_SERVE_HOST")
    parser.add_argument("--host", default=host, help="address to bind; overrides TRACER_SERVE_HOST and server.host")
    parser.add_argument("--port", type=int, help="port to bind; overrides server.port")
    insecure = bool(os.environ.get("TRACER_SERVE_INSECURE"))
    parser.add_argument("--insecure", action="store_true", default=insecure, help="bind beyond loopback without keys")


def run(args: argparse.Namespace) -> int:
    """Fit first versions where traces are there, print where to ask, and serve until stopped.

    Everything that can be wrong with any of the tasks is looked for before the first of them starts.
    """
    tasks = tuple(_moved(task, args.host, args.port) for task in load_tasks(args.task))
    require_one_address(tasks)
    for task in tasks:
        require_keys(task.spec.server, insecure=args.insecure, file=task.file)
    for task in tasks:
        check(task)
    require_free_port(tasks[0].spec.server.host, tasks[0].spec.server.port)
    for task in tasks:
        prepare(task)
    invite(*tasks)
    return serve(*tasks)


def _moved(task: Task, host: str | None, port: int | None) -> Task:
    """Return the task listening elsewhere."""
    server = task.spec.server
    moved = server.model_copy(update={"host": host or server.host, "port": port or server.port})
    return replace(task, spec=task.spec.model_copy(update={"server": moved}))


def prepare(task: Task) -> None:
    """Import new traces and write version 1 where there is none and traces are there."""
    versions = versions_of(task)
    store = store_of(task)
    try:
        import_traces(task, store)
        any_traces, closing = store.latest_id() is not None, closing_of(store)
    finally:
        store.close()
    current = versions.current()
    if current is None and any_traces:
        _first(task)
    elif current is None:
        out.print(
            f"{task.spec.name}: no traces yet; every request goes to the teacher, and each answer becomes a trace"
        )
    else:
        versions.verify(current)
        certificate = certificate_of(versions, current)
        rows = [("task", task.spec.name), ("version", str(current)), *finding(task, current, certificate)]
        manifest, demands = versions.manifest(current), Demands(teacher_fingerprint(task), task.spec.gate, closing)
        void = demands.void(certificate, manifest.teacher, manifest.after) if certificate.certified else None
        if void is not None:
            rows.append(("gate", f"CLOSED, everything goes to the teacher: {void.message}"))
        facts(rows)


def _first(task: Task) -> None:
    """Write version 1, unless another process does so at this moment."""
    from tracer_serve.commands.fit_ import summary  # noqa: PLC0415  # both bring scikit-learn, two seconds that a
    from tracer_serve.refit import refit  # noqa: PLC0415  # start with a version is spared

    try:
        with progress_bar() as progress:
            outcome = refit(task, "start", progress)
    except BusyError as error:
        out.print(f"{error}. Until there is a version every request goes to the teacher", markup=False)
    else:
        summary(task, outcome)


def invite(task: Task, *others: Task) -> None:
    """Print the URL and a curl line that works when pasted; several tasks are told apart by `model`."""
    server = task.spec.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104  # shown, not bound
    url = f"http://{host}:{server.port}"
    body = json.dumps(({"model": task.spec.name} if others else {}) | {"input": example(task)})
    out.print(f"\nlistening on {url}  (ctrl-c stops)\ntry it:")
    key = " -H 'authorization: Bearer YOUR-KEY'" if server.api_keys else ""
    line = f"  curl -s {url}/v1/classify{key} -H 'content-type: application/json' -d {shlex.quote(body)}\n"
    out.print(line, markup=False)


def example(task: Task) -> object:
    """Return an input to try: a recent one of the store, else a greeting."""
    store = store_of(task)
    try:
        found = next(iter(store.labelled()), None)
    finally:
        store.close()
    if found is not None:
        return list(found.input) if isinstance(found.input, tuple) else found.input
    return ["first text", "second text"] if task.spec.input == "pair" else "hello"
