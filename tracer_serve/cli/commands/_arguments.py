"""Arguments that commands share."""

import argparse
import os
from pathlib import Path

from tracer_serve.errors import BadInputError


def add_text_field(parser: argparse.ArgumentParser) -> None:
    """Add ``--text-field``, read by `text_field_of`."""
    what = "field or column that holds the text; twice for a pair"
    parser.add_argument("--text-field", metavar="NAME", action="append", default=[], help=what)


def count(word: str) -> int:
    """Return a number of things, at least 1, that an argument gives."""
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def text_field_of(names: list[str]) -> str | tuple[str, str] | None:
    """Return the field of a text, or the two of a pair; None where none was named."""
    if len(names) > 1:
        return names[0], names[1]
    return names[0] if names else None


def require_place(file: Path) -> None:
    """Check that a file can be made, before the work that it is to hold is done.

    Raises
    ------
    BadInputError
        Where its folder is not there, or may not be written.
    """
    folder = file.parent
    if not folder.is_dir():
        raise BadInputError(f"{file}: there is no folder {folder}; make it: mkdir -p {folder}")
    if file.is_dir() or not os.access(folder, os.W_OK):
        raise BadInputError(f"{file}: cannot be written; look: ls -ld {folder} {file}")
