"""Remove the prompt that all texts of a file are wrapped in, such as ``Tweet: ... Label:``."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

from tracer_serve.forms.slot import Slot, find_slot
from tracer_serve.storage.importers.items import LabelledText, ReadOptions
from tracer_serve.storage.importers.parse import read_items

SAMPLE = 1000
"""Texts at the beginning of the file in which the wrapper is looked for."""

_DELIMITERS = frozenset(":>=\"'`|])}([{<-\n")
_LONG = 40  # characters that a wrapper may have in common with many texts by chance


def with_wrapper(path: Path, reading: ReadOptions) -> ReadOptions:
    """Return the options with the wrapper that the file's texts share, if there is one.

    Raises
    ------
    ImportFileError
        The file as a whole cannot be read.
    """
    if reading.keep_wrapper:
        return reading
    items = (item for item in read_items(path, reading) if isinstance(item, LabelledText))
    texts = [item.text for item in islice(items, SAMPLE) if isinstance(item.text, str)]
    slot = find_slot(texts)
    return reading if slot is None else replace(reading, wrapper=_deliberate(slot))


def _deliberate(slot: Slot) -> Slot | None:
    """Return the ends that are no coincidence: that a delimiter separates from the text, or that are long.

    Questions may all begin with ``How do I``; that is the text, and stays.
    """
    prefix = slot.prefix if len(slot.prefix) >= _LONG or slot.prefix.rstrip(" \t")[-1:] in _DELIMITERS else ""
    suffix = slot.suffix if len(slot.suffix) >= _LONG or slot.suffix.lstrip(" \t")[:1] in _DELIMITERS else ""
    return Slot(prefix, suffix) if _says_something(prefix) or _says_something(suffix) else None


def _says_something(end: str) -> bool:
    return any(char.isalnum() for char in end)
