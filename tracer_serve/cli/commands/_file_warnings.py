"""Warn of labels and texts of a file from which no surrogate can learn."""

import textwrap
from collections.abc import Iterable

from tracer_serve.storage.importers import ImportSummary

_LONGEST = 60  # characters of a label that is shown among others
_FEW = 20  # rows in which unique labels are no sign of a mistake
_SHOWN = 40  # characters of a wrapper's end


def file_warnings(summary: ImportSummary) -> list[tuple[str, str]]:
    """Return facts to print: a wrapper that was removed, HTML entities, labels that differ in case or are unique."""
    found = []
    if 2 * len(summary.once) > max(summary.rows, _FEW):
        found.append("most rows have a label of their own: are text and label in the fields that were read?")
    if alike := _alike(summary.labels):
        differ = f"labels {alike[0]!r} and {alike[1]!r} differ in case or spaces only, and count as two"
        found.append(f"{differ}; with `labels:` in the YAML both are read as the label that is listed there")
    if summary.escaped:
        found.append(
            f"{summary.escaped:,} of {summary.rows:,} texts have HTML entities such as &amp; or &#39;: if live"
            " requests are not escaped, unescape the file first"
        )
    return [*wrapper_note(summary), *(("warning", text) for text in found)]


def wrapper_note(summary: ImportSummary) -> list[tuple[str, str]]:
    """Return the fact that a wrapper was removed from the texts, with its two ends."""
    if summary.wrapper is None:
        return []
    ends = f"{summary.wrapper.prefix[-_SHOWN:]!r} before and {summary.wrapper.suffix[:_SHOWN]!r} after the text"
    bare = summary.rows - summary.unwrapped
    kept = f"; {bare:,} without it are as they were" if bare else ""
    removed = f"removed from {summary.unwrapped:,} of {summary.rows:,} texts: {ends}{kept}. Keep it: --keep-wrapper"
    return [("wrapper", removed)]


def short_label(label: str) -> str:
    """Return a label on one line that leaves room for others."""
    return textwrap.shorten(label, _LONGEST, placeholder=" ...")


def _alike(labels: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two labels that differ in case or white space only."""
    seen: dict[str, str] = {}
    for label in labels:
        form = " ".join(label.casefold().split())
        if form in seen:
            return seen[form], label
        seen[form] = label
    return None
