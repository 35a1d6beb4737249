"""What a bench prints at its end: rows as JSON, or tables for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from tracer_serve.cli.console import out


def show(rows: Sequence[Any], *tables: Table, as_json: bool) -> None:
    """Print rows, which are dataclasses, as a JSON list and nothing else; or else the tables."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    for table in tables:
        out.print(table)
