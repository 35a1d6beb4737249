"""Arguments that commands which read files of texts share."""

import argparse


def add_text_field(parser: argparse.ArgumentParser) -> None:
    """Add ``--text-field``, read by `text_field_of`."""
    what = "field or column that holds the text; twice for a pair"
    parser.add_argument("--text-field", metavar="NAME", action="append", default=[], help=what)


def text_field_of(names: list[str]) -> str | tuple[str, str] | None:
    """Return the field of a text, or the two of a pair; None where none was named."""
    if len(names) > 1:
        return names[0], names[1]
    return names[0] if names else None
