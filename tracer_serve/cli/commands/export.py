"""``tracer-serve export``: write a version's policy as one ONNX file."""

import argparse
from pathlib import Path

from tracer_serve.cli.console import facts, print_json
from tracer_serve.components.factory import load_plugins, make_embedders
from tracer_serve.config.load import load_task
from tracer_serve.errors import ArtifactError
from tracer_serve.policy.onnx_export.export import export_policy
from tracer_serve.policy.policy import Policy
from tracer_serve.storage.versions.opening import open_versions

_RARITY = "how rare a text's n-grams are (NgramRarity.of); the scope guard needs it"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--version", type=int, metavar="N", help="which version; default: the one that serves")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write the graph and say what it takes and gives."""
    task = load_task(args.task)
    load_plugins(task)
    versions = open_versions(task)
    number = versions.current() if args.version is None else args.version
    if number is None:
        raise ArtifactError(f"no version yet in {task.state}; `tracer-serve fit {args.task}` writes the first")
    versions.verify(number)
    policy = Policy.load(versions.folder(number) / "model", *make_embedders(task))
    if not args.onnx.absolute().parent.is_dir():
        raise ArtifactError(f"there is no folder {args.onnx.parent}; create it: mkdir -p {args.onnx.parent}")
    inputs = export_policy(policy, args.onnx, {"task": task.spec.name, "version": number})
    size = args.onnx.stat().st_size
    if args.json:
        print_json({"version": number, "file": str(args.onnx), "bytes": size, "inputs": inputs})
        return 0
    rows = [
        ("version", f"{number}, as {args.onnx} ({size / 1e6:,.1f} MB)"),
        ("vectors", f"of the embedder {policy.fingerprint}, float32, shape (n, d)"),
        *([("rarity", _RARITY)] if "rarity" in inputs else []),
        ("outputs", "label (an index into the metadata's labels), score, handled"),
        ("not in it", "lengths of texts (metadata: longest_text), audits, and the gate: nothing closes it by itself"),
    ]
    facts(rows)
    return 0
