"""What a file holds, counted in one pass; of a text only its hash is kept."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tracer_serve.storage.importers.items import LabelledText, Refusal
from tracer_serve.types import Text

_EXAMPLES = 20
_REFUSALS = 1000


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A text that stands in the file with two labels."""

    line: int
    text: Text
    label: str
    earlier: str


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What was found in a file, and what came of it.

    Parameters
    ----------
    rows : labelled texts that were read
    imported : rows that were added to the store; 0 for a dry run, and for a file that was imported before
    already : whether this very content was imported before
    skipped : records that are not meant to be traces (spans of other kinds, failed requests)
    duplicates : rows that repeat an earlier (text, label); they are traffic, and are kept
    labels : rows per label, most frequent first
    contradictory : rows whose text stood earlier in the file with another label
    contradictions : the first of them
    refused : lines that are no trace
    refusals : the first 1,000 of them
    teachers : rows per model that labelled them, where the file says
    sha256 : of the file's bytes
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

    @property
    def once(self) -> tuple[str, ...]:
        """Labels with a single row: no surrogate can learn them, and no fold can test them."""
        return tuple(label for label, n in self.labels.items() if n == 1)


def survey(path: Path, items: Iterable[LabelledText | Refusal | None]) -> ImportSummary:
    """Count what a file holds."""
    labels: Counter[str] = Counter()
    teachers: Counter[str] = Counter()
    seen: dict[int, list[str]] = {}  # by hash of the text, 64 bits: texts would not fit into memory
    contradictions: list[Contradiction] = []
    refusals: list[Refusal] = []
    skipped = refused = duplicates = contradictory = 0
    for item in items:
        if item is None:
            skipped += 1
        elif isinstance(item, Refusal):
            refused += 1
            refusals.extend([item] if len(refusals) < _REFUSALS else [])
        else:
            labels[item.label] += 1
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
    )
