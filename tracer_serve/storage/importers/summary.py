"""Summarise a file of traces in one pass; only hashes of the texts are kept."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tracer_serve.forms.slot import Slot
from tracer_serve.storage.importers.items import LabelledText, Refusal
from tracer_serve.types import Text

_EXAMPLES = 20
_REFUSALS = 1000
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#x[0-9a-fA-F]{1,6});")


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A text that has two labels in the file."""

    line: int
    text: Text
    label: str
    earlier: str


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """The content of a file, and what an import did with it.

    Parameters
    ----------
    rows : labelled texts that were read
    imported : rows that were added to the store; 0 for a dry run, and for a file that was imported before
    already : whether the same content was imported before
    skipped : records of other kinds (spans that called no model, failed requests)
    duplicates : rows that repeat an earlier (text, label); they are traffic, and are kept
    labels : rows per label, most frequent first
    contradictory : rows whose text has another label earlier in the file
    contradictions : the first of them
    refused : lines that are not traces
    refusals : the first 1,000 of them
    teachers : rows per model that labelled them, where the file names it
    sha256 : of the file's bytes
    wrapper : the prompt around the texts that was removed; None if there was none
    unwrapped : rows that had it
    escaped : rows whose text has HTML entities, such as ``&amp;``
    """

    path: Path
    rows: int = 0
    imported: int = 0
    already: bool = False
    dry_run: bool = False
    skipped: int = 0
    duplicates: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    contradictory: int = 0
    contradictions: tuple[Contradiction, ...] = ()
    refused: int = 0
    refusals: tuple[Refusal, ...] = ()
    teachers: dict[str, int] = field(default_factory=dict)
    sha256: str = ""
    wrapper: Slot | None = None
    unwrapped: int = 0
    escaped: int = 0

    @property
    def once(self) -> tuple[str, ...]:
        """Labels with a single row, which no surrogate can learn and no fold can test."""
        return tuple(label for label, n in self.labels.items() if n == 1)


def survey(path: Path, items: Iterable[LabelledText | Refusal | None], wrapper: Slot | None = None) -> ImportSummary:
    """Count labels, duplicates, contradictions and refusals."""
    labels: Counter[str] = Counter()
    teachers: Counter[str] = Counter()
    seen: dict[int, list[str]] = {}  # by 64-bit hash of the text: the texts may not fit into memory
    contradictions: list[Contradiction] = []
    refusals: list[Refusal] = []
    skipped = refused = duplicates = contradictory = unwrapped = escaped = 0
    for item in items:
        if item is None:
            skipped += 1
        elif isinstance(item, Refusal):
            refused += 1
            refusals.extend([item] if len(refusals) < _REFUSALS else [])
        else:
            labels[item.label] += 1
            unwrapped += item.unwrapped
            escaped += any(map(_ENTITY.search, [item.text] if isinstance(item.text, str) else item.text))
            teachers.update([item.teacher] if item.teacher else [])
            earlier = seen.setdefault(hash(item.text), [])
            duplicates += item.label in earlier
            if any(label != item.label for label in earlier):
                contradictory += 1
                if len(contradictions) < _EXAMPLES:
                    other = next(label for label in earlier if label != item.label)
                    contradictions.append(Contradiction(item.line, item.text, item.label, other))
            if item.label not in earlier:
                earlier.append(item.label)
    return ImportSummary(
        path=path,
        rows=labels.total(),
        skipped=skipped,
        duplicates=duplicates,
        labels=dict(sorted(labels.items(), key=lambda entry: (-entry[1], entry[0]))),
        contradictory=contradictory,
        contradictions=tuple(contradictions),
        refused=refused,
        refusals=tuple(refusals),
        teachers=dict(teachers.most_common()),
        wrapper=wrapper,
        unwrapped=unwrapped,
        escaped=escaped,
    )
