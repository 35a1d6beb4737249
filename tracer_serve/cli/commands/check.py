"""``tracer-serve check``: validate a task before it is served."""

import argparse
import asyncio
import os
import time
from contextlib import closing
from pathlib import Path

from tracer_serve.cli.commands._arguments import count
from tracer_serve.cli.commands._check_warnings import check_warnings
from tracer_serve.cli.console import err, facts, print_json, progress_bar
from tracer_serve.components.contract import check_plugins
from tracer_serve.components.factory import (
    load_plugins,
    make_acceptor,
    make_embedders,
    make_redactors,
    make_surrogate,
    make_teacher,
)
from tracer_serve.components.known_forms import make_forms
from tracer_serve.components.teachers._spend_limit import spend_limit_of
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import BadInputError, SpecError
from tracer_serve.server.chat.recognise import Recogniser, TaskCall
from tracer_serve.server.dashboard.forwarded import ADVICE
from tracer_serve.server.process.address import require_keys
from tracer_serve.storage.importers import ReadOptions, survey_file
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import length_of

_SLOW_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    asked = "also ask the teacher to label this text; twice for the two texts of a pair"
    parser.add_argument("--teacher", action="append", metavar="TEXT", help=asked)
    parser.add_argument(
        "--teacher-noise",
        type=count,
        metavar="N",
        help="also relabel N stored inputs with the teacher, to measure how often it agrees with itself",
    )
    parser.add_argument(
        "--batch-api", action="store_true", help="with --teacher-noise: ask by the teacher's batch API, half price"
    )
    parser.add_argument(
        "--request",
        type=Path,
        metavar="BODY.json",
        help="also say whether the call with this body would be recognised, and if not, why",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check spec, plugins, components and trace files; with --teacher also the teacher."""
    task = load_task(args.task)
    found = check(task) | _traces(task)
    _warn_of_open_access(task)
    if args.request is not None:
        found["request"] = check_request(task, args.request)
    if args.teacher is not None:
        found["answer"] = asyncio.run(_ask(task, args.teacher))
    if args.teacher_noise is not None:
        found["teacher_noise"] = _noise(task, args.teacher_noise, batch_api=args.batch_api, quiet=args.json)
    if args.json:
        print_json(found)
    else:
        facts([("ok", str(args.task)), *((key, value) for key, value in found.items()), ("next", _next(task))])
    return 0


def check_request(task: Task, file: Path) -> str:
    """Return whether the call with the body in a file is of a known form; if not, which rule it breaks.

    Raises
    ------
    BadInputError
        If the file cannot be read.
    """
    try:
        body = file.read_bytes()
    except OSError as error:
        raise BadInputError(f"{file} cannot be read: {error.strerror}") from None
    forms, pair = make_forms(task, make_teacher(task)), task.spec.input == "pair"
    spec = task.spec
    recogniser = Recogniser(spec.name, forms, lambda: spec.label_names, pair=pair, fields=spec.answer_fields)
    read = recogniser.read(body)
    if isinstance(read, TaskCall):
        problem = read.shape.problem(read.shape.example)
        limits = f"; handled answers are deferred all the same: {problem}" if problem else ""
        return f"recognised as {read.known.name}, its text has {length_of(read.text):,} characters{limits}"
    advice = ADVICE.get(read.reason, "")
    return f"not recognised ({read.reason}), nearest is {read.nearest}: {read.detail}. {advice}".rstrip()


def _warn_of_open_access(task: Task) -> None:
    """Warn if `serve` will refuse to bind beyond loopback without keys."""
    try:
        require_keys(task.spec.server, insecure=bool(os.environ.get("TRACER_SERVE_INSECURE")), file=task.file)
    except SpecError as error:
        err.print(f"warning: {error}", markup=False)


def check(task: Task) -> dict[str, str]:
    """Build every component of a task once.

    Raises
    ------
    SpecError, PluginError
        For the first problem found.
    """
    spec = task.spec
    began = time.monotonic()
    plugins = load_plugins(task)
    took = time.monotonic() - began
    slow = f"; {took:.0f} s to import in every process; import heavy libraries inside functions"
    make_embedders(task)
    for index in range(len(spec.surrogates)):
        make_surrogate(task, index)
    for index in range(len(spec.acceptors)):
        make_acceptor(task, index)
    limit = spend_limit_of(make_teacher(task))
    make_redactors(task)
    checked = check_plugins(task)
    return {
        "task": spec.name,
        "promise": f"alpha {spec.gate.alpha:g}, delta {spec.gate.delta:g}, {spec.gate.mode}",
        "embedder": spec.embedder.type,
        "surrogates": ", ".join(c.name for c in spec.surrogates),
        "acceptors": ", ".join(c.type for c in spec.acceptors),
        "teacher": spec.teacher.type + (f", {limit.describe()}" if limit else ""),
        "plugins": (", ".join(plugins) or "none") + (slow if took > _SLOW_S else ""),
        "contract": f"kept by {', '.join(checked)}" if checked else "built-ins only",
        "state": str(task.state),
    }


def _next(task: Task) -> str:
    """Return the next command to run."""
    if (task.state / "versions").is_dir() or task.spec.versions.url is not None:
        return f"tracer-serve {task.file} serves it; tracer-serve refit {task.file} makes a new version"
    if task.spec.traces.import_:
        return f"tracer-serve {task.file} fits a first version, then serves it"
    return f"tracer-serve {task.file} serves it; the teacher answers, and its answers are stored as traces"


def _traces(task: Task) -> dict[str, str]:
    """Read the files that the first fit will import, and count rows and labels.

    Invalid lines are a warning here, because `import --skip-bad` may have skipped them already.

    Raises
    ------
    ImportFileError
        If a file cannot be read or contains no trace of this task.
    """
    spec = task.spec
    reading = ReadOptions(labels=spec.readable_labels, pair=spec.input == "pair", fields=spec.answer_fields)
    found = [survey_file(task.resolve(path), reading, skip_bad=True) for path in task.spec.traces.import_]
    for summary in found:
        if summary.refused:
            first = f"{summary.path}: {summary.refusals[0]}"
            leave = f"tracer-serve import {task.file} {summary.path} --skip-bad"
            say = f"warning: {first}. Lines refused: {summary.refused:,}. Fix them, or skip them: {leave}"
            err.print(say, markup=False)
    for warning in check_warnings(task, found):
        err.print(f"warning: {warning}", markup=False)
    counts = [f"{summary.path.name}: rows {summary.rows:,}, labels {len(summary.labels):,}" for summary in found]
    return {"traces": "; ".join(counts) or "none to import"}


def _noise(task: Task, inputs: int, *, batch_api: bool, quiet: bool) -> str:
    """Estimate the teacher's noise, warn if alpha is out of reach, and return the result."""
    from tracer_serve.lifecycle.noise_check import estimate_noise  # noqa: PLC0415  # slow to import; `serve` does not need it

    with closing(store_of(task)) as store, progress_bar(quiet=quiet) as progress:
        noise = estimate_noise(task, store, inputs, progress, batch_api=batch_api)
    alpha = task.spec.gate.alpha
    if noise.forbids(alpha):
        err.print("[bold]warning[/bold]: gate.alpha is above what any surrogate can reach on this teacher")
    failed = f"; {noise.failed:,} inputs got no label" if noise.failed else ""
    return noise.sentence(alpha) + failed


async def _ask(task: Task, texts: list[str]) -> str:
    wanted = 2 if task.spec.input == "pair" else 1
    if len(texts) != wanted:
        what = "pairs: give --teacher twice" if wanted > 1 else "single texts: give --teacher once"
        raise BadInputError(f"{task.spec.name} labels {what}")
    teacher = make_teacher(task)
    try:
        return (await teacher.label((texts[0], texts[1]) if wanted > 1 else texts[0])).label
    finally:
        await teacher.close()
