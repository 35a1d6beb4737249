"""``tracer-serve schema``: print the JSON Schema of the YAML."""

import argparse

from tracer_serve.cli.console import print_json
from tracer_serve.components.json_schema import json_schema


def configure(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    del args
    print_json(json_schema())
    return 0
