"""What is odd about the labels of a file, told before anybody wonders why nothing certifies."""

import textwrap
from collections.abc import Iterable

from tracer_serve.storage.importers import ImportSummary

_LONGEST = 60  # characters of a label that is shown among others
_FEW = 20  # rows of which nothing is odd yet


def label_warnings(summary: ImportSummary) -> list[tuple[str, str]]:
    """Return facts to print: labels that differ in case only, and files in which most rows have one of their own."""
    found = []
    if 2 * len(summary.once) > max(summary.rows, _FEW):
        found.append("most rows have a label of their own: are text and label in the fields that were read?")
    if alike := _alike(summary.labels):
        differ = f"labels {alike[0]!r} and {alike[1]!r} differ in case or spaces only, and count as two"
        found.append(f"{differ}; with `labels:` in the YAML another case is read as the label that stands there")
    return [("warning", text) for text in found]


def short_label(label: str) -> str:
    """Return a label on one line that leaves room for others."""
    return textwrap.shorten(label, _LONGEST, placeholder=" ...")


def _alike(labels: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two labels that people would call the same."""
    seen: dict[str, str] = {}
    for label in labels:
        form = " ".join(label.casefold().split())
        if form in seen:
            return seen[form], label
        seen[form] = label
    return None
