"""``tracer-serve proxy``: forward every LLM call unchanged, and find the classification tasks among them."""

import argparse
import os
from pathlib import Path

from pydantic import SecretStr

from tracer_serve.cli.console import facts
from tracer_serve.components.registry import redactors
from tracer_serve.config.server import ADMIN_KEY as KEY
from tracer_serve.config.server import ServerSpec
from tracer_serve.errors import BadInputError
from tracer_serve.infra.redaction import redaction
from tracer_serve.report.discovery import Prices
from tracer_serve.server.process.address import bind
from tracer_serve.server.proxy.app import make_proxy
from tracer_serve.server.proxy.found import FoundCalls, Settings
from tracer_serve.server.proxy.observer import Observer
from tracer_serve.server.proxy.run import run_proxy
from tracer_serve.storage.observed import ObservedCalls

_KEY_LENGTH = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--upstream", required=True, metavar="URL", help="the LLM's API: https://api.openai.com/v1")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=3000, help="port to bind")
    state = "folder of the observed calls"
    parser.add_argument("--state", type=Path, default=Path(".tracer/proxy"), metavar="DIR", help=state)
    parser.add_argument("--tasks", type=Path, default=Path("tasks"), metavar="DIR", help="folder for YAMLs")
    parser.add_argument("--days", type=float, default=7.0, help="days that texts are kept")
    parser.add_argument("--redact", action="append", default=[], metavar="NAME", help="redactor of texts, such as pii")
    parser.add_argument("--alpha", type=float, default=0.95, help="agreement of projections and YAMLs")
    parser.add_argument("--prompt-per-1m", type=float, metavar="USD", help="price of a million prompt tokens")
    parser.add_argument("--completion-per-1m", type=float, metavar="USD", help="price of a million completion tokens")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    if not args.upstream.startswith(("http://", "https://")):
        raise BadInputError(f"--upstream {args.upstream}: needs a URL such as https://api.openai.com/v1")
    key = os.environ.get(KEY, "")
    if key and len(key) < _KEY_LENGTH:
        raise BadInputError(f"{KEY} has fewer than {_KEY_LENGTH} characters; openssl rand -hex 24 makes one")
    listener = bind(ServerSpec(host=args.host, port=args.port))
    file = args.state / "observed.db"
    store = ObservedCalls(file)
    observer = Observer(store, args.days, redaction([redactors.build(name) for name in args.redact]))
    prices = Prices(args.prompt_per_1m, args.completion_per_1m)
    found = FoundCalls(observer, Settings(args.upstream, file, args.tasks, args.alpha, prices))
    url = f"http://{args.host}:{args.port}"
    page = f"{url}/ with the admin key as password" if key else f"closed; set {KEY} to open {url}/"
    facts(
        [
            ("proxy", f"{url}/v1 forwards to {args.upstream} with the callers' own keys"),
            ("observed", f"{file}, for {args.days:g} days; tracer-serve discover {file}"),
            ("page", page),
        ]
    )
    run_proxy(make_proxy(args.upstream, observer, found, SecretStr(key)), listener)
    return 0
