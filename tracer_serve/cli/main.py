"""Command line: parse arguments, run a command, print errors."""

import argparse
import importlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tracer_serve import __version__
from tracer_serve.errors import TracerServeError

COMMANDS = {
    "serve": "serve a task; fits first if there are traces and no version",
    "check": "validate the spec, its components, plugins and trace files, and on request the teacher",
    "fit": "import the traces and write a version with its certificate and report",
    "refit": "fit again from the traces collected so far; the same as fit",
    "versions": "list the versions and which one serves",
    "rollback": "serve an earlier version",
    "log": "print the audit log: who refitted, rolled back, imported or removed what, and when",
    "report": "print a version's headline, worst slices, next best action and the path of its page",
    "import": "import labelled traces into the store",
    "classify": "label a whole file with the current version, as fast as the embedder; resumable",
    "forget": "remove a user's traces and mark the versions fitted on them",
    "scan": "estimate from a trace file what the surrogate would handle, before deployment",
    "prove": "refit on resamples of the task's own traces and count how often the certificate was wrong",
    "discover": "find the classification tasks in LLM logs: their prompts, labels and cost; writes their YAMLs",
    "proxy": "forward every LLM call unchanged, and find the classification tasks among them",
    "export": "write a version's policy as one ONNX file, for other runtimes: vectors in, decisions out",
    "build": "make a bento of a task, for `bentoml serve` and `bentoml containerize`",
    "traces": "`traces copy FROM TO`: move a store from SQLite to Postgres, or back; `traces prune`: remove old rows",
    "schema": "print the JSON Schema of the YAML, for editors",
}
_MODULES = {"import": "import_traces"}  # a keyword cannot name a module
_UNEXPECTED, _INTERRUPTED, _TERMINATED = 3, 128 + signal.SIGINT, 128 + signal.SIGTERM


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM; ends a command like ctrl-c, so that leases are released."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    0 done, 1 the input is wrong, 2 usage, 3 unexpected (with a log file), 130 interrupted, 143 terminated
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in COMMANDS and _is_path(words[0]):
        words.insert(0, "serve")
    if len(words) < 2 and words[:1] not in (["schema"], ["-V"], ["--version"]):  # noqa: PLR2004  # a command and its file
        words = [*words, "--help"]
    try:
        return _run(words)
    except TracerServeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt as stopped:
        sys.stderr.write("interrupted; unfinished work was discarded\n")
        return _TERMINATED if isinstance(stopped, _TerminatedError) else _INTERRUPTED
    except Exception as error:  # noqa: BLE001  # last resort: print, log, and exit with a code of its own
        log = Path(tempfile.mkdtemp(prefix="tracer-serve-")) / "error.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        sys.stderr.write(f"unexpected error: {type(error).__name__}: {error}\nThe details are in {log}\n")
        return _UNEXPECTED


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of one command: only that one is imported."""
    top = argparse.ArgumentParser(
        prog="tracer-serve",
        description="Serve an LLM classification task by a cheap surrogate, where a certificate allows it.",
        epilog="`tracer-serve TASK.yaml` is short for `tracer-serve serve TASK.yaml`.",
    )
    top.add_argument("-V", "--version", action="version", version=f"tracer-serve {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, what in COMMANDS.items():
        sub = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if name == command:
            module = importlib.import_module(f"tracer_serve.cli.commands.{_MODULES.get(name, name)}")
            module.configure(sub)
            sub.set_defaults(run=module.run)
    return top


def _is_path(word: str) -> bool:
    """Return whether the first word is a task file, and neither an option nor a misspelt command."""
    return not word.startswith("-") and ("." in word or os.sep in word or Path(word).exists())


def _run(words: list[str]) -> int:
    # Matrix products here are small: further BLAS threads mostly wait for each other and burn CPU. This must be set
    # before numpy is imported; embedders on torch or onnxruntime have their own threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    args = parser(words[0] if words[0] in COMMANDS else None).parse_args(words)
    code: int = args.run(args)
    return code


def entry() -> NoReturn:
    """Console script.

    SIGTERM is handled, because by default it would not release leases and is ignored by process 1 of a container.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError
