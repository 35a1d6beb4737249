"""``tracer-serve serve``: serve one or several tasks."""

import argparse
import os
from pathlib import Path

from tracer_serve.server.process.handshake import WorkerHandle, announced


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
    parser.add_argument("--port", type=_port, help="port to bind; overrides server.port")
    insecure = bool(os.environ.get("TRACER_SERVE_INSECURE"))
    parser.add_argument("--insecure", action="store_true", default=insecure, help="bind beyond loopback without keys")


def _port(word: str) -> int:
    port = int(word)
    if not 1 <= port <= 65535:  # noqa: PLR2004  # as in the YAML
        raise argparse.ArgumentTypeError("from 1 to 65535")
    return port


def run(args: argparse.Namespace) -> int:
    """Fit missing first versions, print the URL, and serve until stopped."""
    # the worker starts first, so that its imports run in parallel with those of this process
    with announced(args.task), WorkerHandle("tracer_serve.cli.commands._worker") as worker:
        from tracer_serve.cli.commands._serving import go  # noqa: PLC0415

        return go(args, worker)
