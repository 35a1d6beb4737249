"""Command-line arguments shared by several commands."""

import argparse
import os
from pathlib import Path

from tracer_serve.config.task import Spec
from tracer_serve.errors import BadInputError
from tracer_serve.storage.importers import FORMATS, ReadOptions


def add_text_field(parser: argparse.ArgumentParser) -> None:
    """Add ``--text-field``; `text_field_of` returns it."""
    what = "field or column that holds the text; twice for a pair"
    parser.add_argument("--text-field", metavar="NAME", action="append", default=[], help=what)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading a trace file; `reading_of` returns them."""
    parser.add_argument("--format", choices=FORMATS, default="auto", help="how to read the file; default: detected")
    add_text_field(parser)
    what = "field or column that holds the label; result.is_spam leads into a JSON answer"
    parser.add_argument("--label-field", metavar="NAME", help=what)
    parser.add_argument("--skip-bad", action="store_true", help="skip invalid lines")
    what = "keep the prompt that all texts of a file begin and end with; default: it is removed"
    parser.add_argument("--keep-wrapper", action="store_true", help=what)


def reading_of(args: argparse.Namespace, spec: Spec | None) -> ReadOptions:
    """Return the reading options from the arguments and the task's labels."""
    return ReadOptions(
        fmt=args.format,
        labels=() if spec is None else spec.readable_labels,
        pair=None if spec is None else spec.input == "pair",
        text_field=text_field_of(args.text_field),
        label_field=args.label_field,
        keep_wrapper=args.keep_wrapper,
        fields=None if spec is None else spec.answer_fields,
    )


def count(word: str) -> int:
    """Parse a count of at least 1."""
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def text_field_of(names: list[str]) -> str | tuple[str, str] | None:
    """Return the field of a text, or both fields of a pair; None if none was given."""
    if len(names) > 1:
        return names[0], names[1]
    return names[0] if names else None


def require_place(file: Path) -> None:
    """Check that a file can be written, before doing the work.

    Raises
    ------
    BadInputError
        If its folder does not exist or is not writable.
    """
    folder = file.parent
    if not folder.is_dir():
        raise BadInputError(f"{file}: there is no folder {folder}; create it: mkdir -p {folder}")
    if file.is_dir() or not os.access(folder, os.W_OK):
        raise BadInputError(f"{file}: cannot be written; check: ls -ld {folder} {file}")
